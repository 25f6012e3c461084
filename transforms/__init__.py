"""How one recording becomes micro-turns. numpy in, numpy out; transforms stream: `start`, `step`, `finish`. Never Beam, never torch.

What stands here directly are features: sound, pictures and activity to numbers, the same from a file and live. Beside them:

- `media` files to placed tracks, `text` transcripts to timed words;
- `tokens` members of a window to its tokens;
- `sessions` all of it for one row of the manifest.
"""
