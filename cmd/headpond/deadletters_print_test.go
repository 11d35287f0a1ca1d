package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestLetterIsShownAsItIs: quotes stay, and nothing drives the terminal.
func TestLetterIsShownAsItIs(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	require.NoError(t, printLetter(&out, &letterView{ID: 1, Message: `null value in column "nn" of relation "t"`, Detail: "a\\b\x1b[31m\nc\u202e"}))
	require.Contains(t, out.String(), `null value in column "nn" of relation "t"`+"\n")
	require.Contains(t, out.String(), `a\b\x1b[31m\nc\u202e`+"\n")
}
