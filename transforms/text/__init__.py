"""Transcript files to timed words: any of six formats in, words with exact times and a row for everything else out."""
