package election

import (
	"reflect"
	"testing"

	"github.com/stretchr/testify/assert"
)

// No function of Metrics has to be set.
func TestMetricsFilled(t *testing.T) {
	for _, m := range []*Metrics{nil, {}} {
		filled := reflect.ValueOf(m.filled()).Elem()
		for i := range filled.NumField() {
			assert.False(t, filled.Field(i).IsNil(), filled.Type().Field(i).Name)
		}
	}
}
