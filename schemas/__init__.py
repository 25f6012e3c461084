"""What the data is: the clock, the manifest, the specs that bytes depend on, the record codec, the tables. No media, no Beam, no torch."""
