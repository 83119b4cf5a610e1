package field

// Nearest returns the known name that s was probably meant to be: the one with the fewest edits, at
// most two, or one where s has less than five letters. "" where there is none.
func Nearest(s string, known []string) string {
	best, least := "", 3
	if len(s) < 5 {
		least = 2
	}
	for _, k := range known {
		if max(len(k)-len(s), len(s)-len(k)) >= 4*least { // a letter has four bytes at most
			continue
		}
		if d := Distance(s, k); d < least && d < len(k) {
			best, least = k, d
		}
	}
	return best
}

// Distance counts the insertions, deletions, substitutions and swaps of neighbours that make b of a.
func Distance(a, b string) int {
	x, y := []rune(a), []rune(b)
	var before []int // the row before the last one
	row := make([]int, len(y)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(x); i++ {
		next := make([]int, len(y)+1)
		next[0] = i
		for j := 1; j <= len(y); j++ {
			change := 1
			if x[i-1] == y[j-1] {
				change = 0
			}
			next[j] = min(row[j]+1, next[j-1]+1, row[j-1]+change)
			if i > 1 && j > 1 && x[i-1] == y[j-2] && x[i-2] == y[j-1] {
				next[j] = min(next[j], before[j-2]+1)
			}
		}
		before, row = row, next
	}
	return row[len(y)]
}
