"""Times of frames: stamps become exact times, and the output frames are chosen from them."""
