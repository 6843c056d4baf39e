"""What a model is worth on held-out documents: answers, measures, intervals, and a report that says what they show."""
