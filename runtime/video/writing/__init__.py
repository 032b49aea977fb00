"""Writes video files, folders of PNG images, and Y4M streams."""
