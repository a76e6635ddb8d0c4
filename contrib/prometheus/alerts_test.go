package prometheus

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const (
	alerts    = "alerts.yml"
	ruleTests = "alerts_test.yml"
	dashboard = "dashboard.json"
)

// promtool runs the real thing, from Debian's package or from the directory
// that scripts/install-checkers fills.
func promtool(t *testing.T, args ...string) (string, error) {
	t.Helper()
	program, err := exec.LookPath("promtool")
	if err != nil {
		program, err = filepath.Abs("../../.cache/checkers/promtool")
		require.NoError(t, err)
		_, err = os.Stat(program)
	}
	if errors.Is(err, os.ErrNotExist) && os.Getenv("ELECTION_REQUIRE_CHECKERS") != "1" {
		t.Skip("there is no promtool; scripts/install-checkers fetches it")
	}
	require.NoError(t, err)
	out, err := exec.CommandContext(t.Context(), program, args...).CombinedOutput()
	return string(out), err
}

func content(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	return string(text)
}

func TestAlertRules(t *testing.T) {
	out, err := promtool(t, "check", "rules", alerts)
	require.NoError(t, err, out)
	out, err = promtool(t, "test", "rules", ruleTests)
	require.NoError(t, err, out)
}

var alertName = regexp.MustCompile(`(?m)^ +- alert: (\w+)$`)

// TestAlertRulesAreTested wants a test for each rule in which it fires, and has
// promtool notice when a rule changes.
func TestAlertRulesAreTested(t *testing.T) {
	rules, tests := content(t, alerts), content(t, ruleTests)
	names := alertName.FindAllStringSubmatch(rules, -1)
	require.GreaterOrEqual(t, len(names), 12)
	for _, name := range names {
		assert.Regexp(t, `alertname: `+name[1]+`\n +exp_alerts:`, tests)
	}
	for was, is := range map[string]string{
		"(election_leader) == 0":  "(election_leader) < 0",
		"(election_leader) > 1":   "(election_leader) > 2",
		"for: 45s":                "for: 5m",
		"> 0) > 60":               "> 0) > 600",
		"unless group":            "and group",
		`cause="takeover_failed"`: `cause="resigned"`,
		"[15m])) > 4":             "[15m])) > 40",
		"election_standing == 0":  "election_standing == 2",
		"< 1.5":                   "< 0.15",
		"election_connected < 1":  "election_connected < 0",
	} {
		changed := strings.ReplaceAll(rules, was, is)
		require.NotEqual(t, rules, changed, was)
		dir := t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(dir, alerts), []byte(changed), 0o644))
		require.NoError(t, os.WriteFile(filepath.Join(dir, ruleTests), []byte(tests), 0o644))
		out, err := promtool(t, "test", "rules", filepath.Join(dir, ruleTests))
		assert.Error(t, err, "%s for %s: %s", is, was, out)
	}
}

// exported are the names of all series, those of histograms with their suffixes.
func exported() (names []string) {
	descriptions := make(chan *prometheus.Desc, 100)
	New().Describe(descriptions)
	close(descriptions)
	for d := range descriptions {
		name := regexp.MustCompile(`fqName: "(\w+)"`).FindStringSubmatch(d.String())[1]
		names = append(names, name, name+"_bucket", name+"_sum", name+"_count")
	}
	return names
}

var metricName = regexp.MustCompile(`\belection_\w+`)

// notExported returns what a text names that is no metric.
func notExported(text string) (unknown []string) {
	known := exported()
	for _, name := range metricName.FindAllString(text, -1) {
		if !slices.Contains(known, name) {
			unknown = append(unknown, name)
		}
	}
	return unknown
}

// TestMetricsExist wants each metric that rules, dashboard and documents name to
// be exported, and each that is exported to be on the dashboard and explained.
func TestMetricsExist(t *testing.T) {
	operations := content(t, "../../docs/operations.md")
	for name, text := range map[string]string{
		alerts: content(t, alerts), ruleTests: content(t, ruleTests), dashboard: content(t, dashboard),
		"operations.md": operations, "the package's documentation": content(t, "prometheus.go"),
	} {
		assert.NotEmpty(t, metricName.FindString(text), name)
		assert.Empty(t, notExported(text), name)
	}
	assert.Equal(t, []string{"election_planted"}, notExported("sum(election_planted) > election_leader"))

	require.GreaterOrEqual(t, len(exported()), 40)
	for i, name := range exported() {
		if i%4 == 0 { // without a suffix
			assert.Contains(t, content(t, dashboard), name)
			assert.Contains(t, content(t, "prometheus.go"), name)
			assert.Contains(t, operations, name)
		}
	}
}

// TestDashboard reads it as Grafana does, and has promtool read its queries.
func TestDashboard(t *testing.T) {
	var board struct {
		Title         string
		UID           string
		SchemaVersion int
		Templating    struct{ List []struct{ Name, Type string } }
		Panels        []struct {
			ID          int
			Title, Type string
			Datasource  struct{ Type, UID string }
			GridPos     struct{ X, Y, W, H int }
			Targets     []struct {
				RefID, Expr string
				Datasource  struct{ Type, UID string }
			}
		}
	}
	require.NoError(t, json.Unmarshal([]byte(content(t, dashboard)), &board))
	assert.NotEmpty(t, board.Title)
	assert.NotEmpty(t, board.UID)
	assert.GreaterOrEqual(t, board.SchemaVersion, 36)
	var variables []string
	for _, v := range board.Templating.List {
		variables = append(variables, v.Name)
	}
	assert.Equal(t, []string{"datasource", "election"}, variables)
	require.GreaterOrEqual(t, len(board.Panels), 10)

	rules, ids, taken := "groups:\n- name: dashboard\n  rules:\n", map[int]bool{}, map[[2]int]string{}
	fill := strings.NewReplacer("$__rate_interval", "5m", "$election", ".*")
	for i, panel := range board.Panels {
		require.NotEmpty(t, panel.Title)
		assert.False(t, ids[panel.ID], "two panels have the id %d", panel.ID)
		ids[panel.ID] = true
		assert.Equal(t, "${datasource}", panel.Datasource.UID, panel.Title)
		require.NotEmpty(t, panel.Targets, panel.Title)
		at := panel.GridPos
		assert.LessOrEqual(t, at.X+at.W, 24, panel.Title)
		for x := at.X; x < at.X+at.W; x++ {
			for y := at.Y; y < at.Y+at.H; y++ {
				require.Empty(t, taken[[2]int{x, y}], "two panels lie on one another, one is %s", panel.Title)
				taken[[2]int{x, y}] = panel.Title
			}
		}
		for j, target := range panel.Targets {
			assert.Equal(t, "${datasource}", target.Datasource.UID, panel.Title)
			assert.NotEmpty(t, target.RefID)
			query := fill.Replace(target.Expr)
			assert.NotContains(t, query, "$", panel.Title)
			rules += fmt.Sprintf("  - record: panel_%d_%d\n    expr: %q\n", i, j, query)
		}
	}
	check := func(rules string) (string, error) {
		file := filepath.Join(t.TempDir(), "rules.yml")
		require.NoError(t, os.WriteFile(file, []byte(rules), 0o644))
		return promtool(t, "check", "rules", file)
	}
	out, err := check(rules)
	require.NoError(t, err, out)
	_, err = check(strings.Replace(rules, "sum by", "sum bye", 1))
	require.Error(t, err, "a query that is none")
}
