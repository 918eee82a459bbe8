"""What compares heads with targets, or relates heads to each other. torch and MONAI are imported in `build`."""
