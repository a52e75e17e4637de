# Formats rows of figures: what, unit, target, ours, peer, between tabs; figures between spaces, one of each round.

function spread(text, unit,    figures, sorted, count, i, k, digits, middle) {
	count = split(text, figures, " ")
	if (count == 0) return ""
	for (i = 1; i <= count; i++) {
		for (k = i; k > 1 && sorted[k - 1] > figures[i] + 0; k--) sorted[k] = sorted[k - 1]
		sorted[k] = figures[i] + 0
	}
	middle = sorted[int(count / 2) + 1]
	digits = middle < 10 && middle > -10 ? 2 : middle < 100 && middle > -100 ? 1 : 0
	if (sorted[1] == sorted[count]) {
		if (middle == int(middle)) digits = 0
		return sprintf("%.*f%s", digits, middle, unit == "" ? "" : " " unit)
	}
	if (unit != "") unit = " " unit
	return sprintf("%.*f / %.*f / %.*f%s", digits, sorted[1], digits, middle, digits, sorted[count], unit)
}

function ratios(ours, peer,    a, b, count, i, text) {
	count = split(ours, a, " ")
	if (split(peer, b, " ") != count) return ""
	for (i = 1; i <= count; i++) {
		if (b[i] + 0 == 0) return ""
		text = text " " a[i] / b[i]
	}
	return spread(text, "")
}

function add(what, ours, peer, ratio, target) {
	cell[++rows, 1] = what; cell[rows, 2] = ours; cell[rows, 3] = peer; cell[rows, 4] = ratio; cell[rows, 5] = target
	for (i = 1; i <= 5; i++) if (length(cell[rows, i]) > width[i]) width[i] = length(cell[rows, i])
}

BEGIN { FS = "\t"; add("what", "ours", "peer", "ratio", "target") }

{ add($1, spread($4, $2), spread($5, $2), ratios($4, $5), $3) }

END {
	for (row = 1; row <= rows; row++) {
		line = ""
		for (i = 1; i <= 5; i++) line = line sprintf("%-" width[i] "s%s", cell[row, i], i < 5 ? "  " : "")
		sub(/ +$/, "", line)
		print line
	}
}
