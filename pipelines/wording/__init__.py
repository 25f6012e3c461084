"""What people type and read: counts, sizes, shares, and what a mistyped name may have meant."""
