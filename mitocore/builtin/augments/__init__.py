"""Changes of image and labels that keep a crop believable."""
