"""What benchmarks measure with: peers, upstreams and sessions, each in a file of its own."""
