"""What several tests need: repositories, servers and the committed model. No test module imports another."""
