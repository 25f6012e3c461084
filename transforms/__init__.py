"""How one recording becomes micro-turns. numpy in, numpy out; transforms stream: `start`, `step`, `finish`. Never Beam, never torch."""
