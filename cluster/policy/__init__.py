"""Pure decisions: a snapshot goes in, a value comes out. No torch, Ray, gRPC, clock, randomness or logging."""
