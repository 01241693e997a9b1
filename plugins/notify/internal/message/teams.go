package message

import (
	pluginv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/plugin/v1"
)

// Teams is the body for a workflow "when a webhook request is received": one Adaptive Card of version
// 1.4. All text stands in RichTextBlocks, which know no markdown.
func Teams(e *pluginv1.Event) ([]byte, error) {
	type object = map[string]any
	line := func(runs ...object) object {
		for _, r := range runs {
			r["type"] = "TextRun"
		}
		return object{"type": "RichTextBlock", "inlines": runs}
	}
	colour := map[string]string{"error": "Attention", "warning": "Warning", "info": "Default"}[severity(e)]
	if colour == "Default" && e.GetTerminal() {
		colour = "Good"
	}
	title := headline(e)
	body := []object{line(object{"text": icon(e) + " " + title, "size": "Medium", "weight": "Bolder", "color": colour})}
	if m := plain(e.GetMessage(), 1000); m != "" {
		body = append(body, line(object{"text": m}))
	}
	for _, f := range facts(e) {
		body = append(body, line(object{"text": f.name + ": ", "weight": "Bolder"}, object{"text": f.value}))
	}
	if at := when(e); !at.IsZero() {
		body = append(body, line(object{"text": at.Format("2006-01-02 15:04:05 MST"), "isSubtle": true, "size": "Small"}))
	}
	card := object{
		"$schema": "http://adaptivecards.io/schemas/adaptive-card.json", "type": "AdaptiveCard", "version": "1.4",
		"fallbackText": title, "body": body, "msteams": object{"width": "Full"},
	}
	if u := CommitURL(e); u != "" {
		card["actions"] = []object{{"type": "Action.OpenUrl", "title": "Commit", "url": u}}
	}
	return encode(object{"type": "message", "attachments": []object{
		{"contentType": "application/vnd.microsoft.card.adaptive", "contentUrl": nil, "content": card}}})
}
