"""What a build will give and cost, told before it is made, and what it gave and cost, told behind it; in the same figures."""
