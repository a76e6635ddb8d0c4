package testutil

func isFourLetterWord(string) bool { return false }

func (c *conn) answerWord(string) {}
