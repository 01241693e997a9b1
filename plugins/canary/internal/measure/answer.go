package measure

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// answer is the numbers of one instant query.
type answer struct {
	shape  string // what it is where it has no numbers: "matrix of 2"
	values []float64
}

// decode reads the body of an answer. Its errors are trouble.
func decode(status int, body []byte) (answer, error) {
	var b struct {
		Status    string   `json:"status"`
		ErrorType string   `json:"errorType"`
		Error     string   `json:"error"`
		Warnings  []string `json:"warnings"`
		Data      struct {
			ResultType string          `json:"resultType"`
			Result     json.RawMessage `json:"result"`
		} `json:"data"`
	}
	err := json.Unmarshal(body, &b)
	switch {
	case err == nil && b.Status == "error":
		if status == http.StatusBadRequest || status == http.StatusUnprocessableEntity {
			return answer{}, trouble{WrongShape, fmt.Sprintf("Prometheus refuses the query: %s: %s", b.ErrorType, b.Error)}
		}
		return answer{}, trouble{Unreachable, fmt.Sprintf("Prometheus answers %d: %s: %s", status, b.ErrorType, b.Error)}
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		return answer{}, trouble{Unreachable, fmt.Sprintf("Prometheus answers %d %s: look at the secret", status, http.StatusText(status))}
	case status != http.StatusOK:
		return answer{}, trouble{Unreachable, fmt.Sprintf("Prometheus answers %d: %.200s", status, body)}
	case err != nil || b.Status != "success":
		return answer{}, trouble{Unreachable, fmt.Sprintf("the answer is not Prometheus's: %.80s", body)}
	}
	for _, w := range b.Warnings {
		// Annotations of the query itself are marked so; the rest says that a part of the data is missing.
		if !strings.HasPrefix(w, "PromQL ") {
			return answer{}, trouble{NoData, "Prometheus answers from a part of its data: " + w}
		}
	}
	return numbers(b.Data.ResultType, b.Data.Result)
}

// numbers takes them out of a vector or a scalar.
func numbers(kind string, result json.RawMessage) (answer, error) {
	garbled := trouble{Unreachable, fmt.Sprintf("the answer is not Prometheus's: a %.20s of %.80s", kind, result)}
	switch kind {
	case "scalar":
		var point [2]any
		if json.Unmarshal(result, &point) != nil {
			return answer{}, garbled
		}
		v, ok := value(point)
		if !ok {
			return answer{}, garbled
		}
		return answer{values: []float64{v}}, nil
	case "vector":
		var series []struct {
			Value     *[2]any         `json:"value"`
			Histogram json.RawMessage `json:"histogram"`
		}
		if json.Unmarshal(result, &series) != nil {
			return answer{}, garbled
		}
		var a answer
		for _, s := range series {
			if s.Value == nil {
				if len(s.Histogram) == 0 {
					return answer{}, garbled
				}
				return answer{shape: "histogram"}, nil
			}
			v, ok := value(*s.Value)
			if !ok {
				return answer{}, garbled
			}
			a.values = append(a.values, v)
		}
		return a, nil
	case "matrix":
		var series []json.RawMessage
		if json.Unmarshal(result, &series) != nil {
			return answer{}, garbled
		}
		return answer{shape: fmt.Sprintf("matrix of %d", len(series))}, nil
	case "string":
		return answer{shape: "string"}, nil
	}
	return answer{}, garbled
}

// value reads [1700000000.123, "99.5"].
func value(point [2]any) (float64, bool) {
	text, ok := point[1].(string)
	if _, timed := point[0].(float64); !ok || !timed {
		return 0, false
	}
	v, err := strconv.ParseFloat(text, 64)
	return v, err == nil
}
