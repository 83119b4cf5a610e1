package field

// Nearest returns the known name with the fewest edits to s, if they are so few that it is likely
// meant: at most two, and fewer than half of its letters. "" where there is none.
func Nearest(s string, known []string) string {
	best, least := "", min(3, len(s)/2+1)
	for _, k := range known {
		if d := edits(s, k); d < least {
			best, least = k, d
		}
	}
	return best
}

// edits is the number of insertions, deletions and substitutions between a and b.
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		last := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := last
			if a[i] != b[j] {
				cost++
			}
			last = row[j+1]
			row[j+1] = min(cost, last+1, row[j]+1)
		}
	}
	return row[len(b)]
}
