"""How one recording becomes micro-turns. numpy in, numpy out; every transform streams: `start`, `step`, `finish`. Never Beam, never torch."""
