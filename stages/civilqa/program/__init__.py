"""What every program needs: params.yaml, files that are whole or not there, errors; and how it starts and ends."""
