"""What is done with a trained network: it is tested, calibrated to leave early, asked about pictures, exported."""
