"""Training: phases as values, one loop that runs them, and the promise that a killed run resumes to the same bits."""
