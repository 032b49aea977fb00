"""Videos, folders of images and Y4M streams, read as frames and packets."""
