"""What speech engines need for tests: a Whisper model with random weights, spoken words."""
