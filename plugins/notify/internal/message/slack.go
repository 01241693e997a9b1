package message

import (
	"fmt"
	"strings"

	pluginv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/plugin/v1"
)

// Slack is the body for an incoming webhook: blocks, and the headline for where blocks are not shown.
// Its limits are Slack's: 150 characters in a header, 3000 in a section, 2000 in a field.
func Slack(e *pluginv1.Event) ([]byte, error) {
	type text struct {
		Type     string `json:"type"`
		Text     string `json:"text"`
		Emoji    *bool  `json:"emoji,omitempty"`    // of plain_text: :smile: stays what it is
		Verbatim *bool  `json:"verbatim,omitempty"` // of mrkdwn: names of channels and people are left alone
	}
	type block struct {
		Type     string `json:"type"`
		Text     *text  `json:"text,omitempty"`
		Fields   []text `json:"fields,omitempty"`
		Elements []text `json:"elements,omitempty"`
	}
	yes, no := true, false
	markdown := func(s string) text { return text{Type: "mrkdwn", Text: s, Verbatim: &yes} }
	title := icon(e) + " " + plain(headline(e), 140)
	blocks := []block{{Type: "header", Text: &text{Type: "plain_text", Text: title, Emoji: &no}}}
	if m := plain(e.GetMessage(), 1000); m != "" {
		body := markdown(unmarked(m))
		blocks = append(blocks, block{Type: "section", Text: &body})
	}
	var fields []text
	for _, f := range facts(e) {
		fields = append(fields, markdown("*"+f.name+"*\n"+unmarked(f.value)))
	}
	if len(fields) > 0 {
		blocks = append(blocks, block{Type: "section", Fields: fields})
	}
	if at := when(e); !at.IsZero() {
		shown := at.Format("2006-01-02 15:04:05 MST")
		blocks = append(blocks, block{Type: "context", Elements: []text{
			markdown(fmt.Sprintf("<!date^%d^{date_short_pretty} {time_secs}|%s> · %s", at.Unix(), shown, unmarked(plain(e.GetId(), 100)))),
		}})
	}
	return encode(map[string]any{"text": unmarked(title), "blocks": blocks})
}

func icon(e *pluginv1.Event) string {
	switch {
	case e.GetSeverity() == pluginv1.Severity_SEVERITY_ERROR:
		return "❌"
	case e.GetSeverity() == pluginv1.Severity_SEVERITY_WARNING:
		return "⚠️"
	case e.GetTerminal():
		return "✅"
	}
	return "ℹ️"
}

// unmarked escapes what starts a link or a mention, and puts a character without width before what would
// start a format.
func unmarked(s string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", "*", "\u200b*", "_", "\u200b_", "~", "\u200b~", "`", "\u200b`").Replace(s)
}
