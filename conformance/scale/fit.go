package main

import "math"

// law is how a figure grows with the number of nodes: factor × nodes^exponent. residual is the root mean square of the
// points' distances from it, as differences of logarithms: 0.05 is about 5 %.
type law struct{ factor, exponent, residual float64 }

// fit finds the law by least squares of the logarithms. It leaves out figures of 0, and needs at least two others.
func fit(nodes []int, values []float64) (l law, found bool) {
	var xs, ys []float64
	for i, v := range values {
		if v > 0 {
			xs, ys = append(xs, math.Log(float64(nodes[i]))), append(ys, math.Log(v))
		}
	}
	if len(xs) < 2 {
		return l, false
	}
	var x, y, xx, xy float64
	for i := range xs {
		x += xs[i] / float64(len(xs))
		y += ys[i] / float64(len(xs))
	}
	for i := range xs {
		xx += (xs[i] - x) * (xs[i] - x)
		xy += (xs[i] - x) * (ys[i] - y)
	}
	l.exponent = xy / xx
	l.factor = math.Exp(y - l.exponent*x)
	for i := range xs {
		off := ys[i] - math.Log(l.at(math.Exp(xs[i])))
		l.residual += off * off / float64(len(xs))
	}
	l.residual = math.Sqrt(l.residual)
	return l, true
}

// at returns the figure for that many nodes.
func (l law) at(nodes float64) float64 { return l.factor * math.Pow(nodes, l.exponent) }
