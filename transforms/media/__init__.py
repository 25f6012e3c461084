"""Media files to placed tracks: libav reads them, every fault is counted, sound and pictures are laid on the session's clock."""
