"""Loading and saving base models and adapters on the machine at hand."""
