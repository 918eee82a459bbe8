"""Training and prediction: the only home of torch, Lightning and MONAI in the core."""
