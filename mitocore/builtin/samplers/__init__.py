"""Where training crops are cut."""
