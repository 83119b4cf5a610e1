package browser

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

func TestEmpty(t *testing.T) {
	h := newHost(t, "version: 1\ntokens: []\n")
	h.run("--sandbox", "--allow-empty")
	b := open(t, desk, h.url)
	b.drawn()
	b.says("No tokens are declared", "there is nothing to rotate")
	if n := b.names(); len(n) != 0 {
		t.Errorf("rows: %v", n)
	}
	b.shot("empty")
}

// What a person does with a fleet that is well: read, filter, sort, unfold, with keys alone.
func TestHealthy(t *testing.T) {
	h := aged(t, "ROTATORD_FLEET_SMALL")
	h.run("--sandbox")
	b := open(t, desk, h.url)
	b.drawn()
	b.until("every row is there", `document.querySelectorAll("#rows .item .row").length === 30`)
	all := b.names()
	if len(all) != 30 {
		t.Fatalf("%d rows", len(all))
	}
	b.says("All 30 tokens are fresh", "prod-eu", "next: ", "now ", "rotates in ", "expires in ", "answers in the help centre")
	if bars := eval[map[string]int](b, `Object.fromEntries(["serves", "margin", "overlap", "old"].map((c) => [c, document.querySelectorAll("#rows .bar." + c).length]))`); bars["serves"] != 30 || bars["margin"] != 30 || bars["overlap"] != 30 || bars["old"] == 0 {
		t.Errorf("bars: %v", bars)
	}
	b.aligned()
	b.shot("healthy")
	b.slash()
	b.keys("crm")
	b.until("the rows are filtered", `document.querySelectorAll("#rows .item").length === 3`)
	if eval[string](b, "location.hash") != "#q=crm" {
		t.Error("the address does not keep the filter: " + eval[string](b, "location.hash"))
	}
	b.do(chromedp.Reload())
	b.until("the filter survives a reload", `document.querySelectorAll("#rows .item").length === 3 && document.querySelector("#q").value === "crm"`)
	b.slash()
	b.keys(kb.Escape)
	b.until("Escape ends it", `document.querySelectorAll("#rows .item").length === 30`)

	b.do(chromedp.SetValue("#sort", "name"), chromedp.Evaluate(`document.querySelector("#sort").dispatchEvent(new Event("change"))`, nil))
	if got := b.names(); !slices.IsSorted(got) {
		t.Errorf("by name: %v", got)
	}
	b.do(chromedp.SetValue("#sort", "planned"), chromedp.Evaluate(`document.querySelector("#sort").dispatchEvent(new Event("change"))`, nil))
	if got := b.names(); slices.IsSorted(got) || len(got) != 30 {
		t.Errorf("by rotation: %v", got)
	}
	wide := eval[float64](b, `document.querySelector("#rows .bar.serves").getBoundingClientRect().width`)
	b.do(chromedp.SetValue("#range", "1d"), chromedp.Evaluate(`document.querySelector("#range").dispatchEvent(new Event("change"))`, nil))
	if now := eval[float64](b, `document.querySelector("#rows .bar.serves").getBoundingClientRect().width`); now < 2*wide {
		t.Errorf("a day instead of all: a bar is %v wide, and was %v", now, wide)
	}
	b.shot("healthy-a-day")

	b.do(chromedp.Focus("#rows .item .name button"))
	b.keys(kb.Enter)
	b.until("a row unfolds", `document.querySelector("#rows .item button[aria-expanded=true]") && document.querySelector("#rows .details")`)
	b.says("Label", "rotatord/prod-eu/", "Place", "Overlap begins")
	b.keys(kb.ArrowDown)
	if got := eval[int](b, `[...document.querySelectorAll("#rows .item")].indexOf(document.activeElement.closest(".item"))`); got != 1 {
		t.Errorf("arrow down went to row %d", got)
	}
	b.keys(kb.ArrowUp)
	b.keys(kb.Enter)
	b.until("and folds", `!document.querySelector("#rows .details")`)

	if bad := b.contrast(); len(bad) > 0 {
		t.Errorf("hard to read: %q", bad)
	}
	roles := eval[[]int](b, `["table", "row", "cell", "rowheader", "img"].map((r) => document.querySelectorAll("#rows [role=" + r + "], #rows[role=" + r + "]").length)`)
	if fmt.Sprint(roles) != "[1 30 120 30 30]" {
		t.Errorf("roles: %v", roles)
	}
	if got := eval[int](b, `[...document.querySelectorAll("button, input, select, a")].filter((e) => !(e.textContent.trim() || e.labels && e.labels.length || e.getAttribute("aria-label"))).length`); got != 0 {
		t.Errorf("%d controls have no name", got)
	}

	for name, l := range map[string]look{"healthy-night": night, "healthy-phone": phone, "healthy-phone-night": {width: 390, height: 844, phone: true, dark: true}, "healthy-tablet": {width: 900, height: 700}, "healthy-wall": {width: 1920, height: 1080, dark: true, reduced: true}} {
		b := open(t, l, h.url)
		b.drawn()
		if over := eval[float64](b, `document.documentElement.scrollWidth - innerWidth`); over > 0 {
			t.Errorf("%s: the page is %v too wide", name, over)
		}
		if bad := b.contrast(); len(bad) > 0 {
			t.Errorf("%s: hard to read: %q", name, bad)
		}
		if l.reduced {
			b.until("the page has refreshed itself", `document.querySelector(".dot.beat")`)
			if got := eval[string](b, `getComputedStyle(document.querySelector(".dot")).animationName`); got != "none" {
				t.Errorf("who wants no motion sees %s", got)
			}
		}
		b.shot(name)
	}
}

// trouble is a host on which everything goes wrong, and whose texts want to be markup.
func trouble(t *testing.T) *host {
	const evil = `<img src=x onerror=window.evil=1>`
	text := `version: 1
instance: acme
api: {requests_per_minute: 6000}
daemon: {settle: 1s, read_back: 2s}
vault: {address: "http://127.0.0.1:9"}
consumers: {shop: {flag: ` + "%DIR%" + `/flags/shop}}
defaults: {scopes: [knowledge:read], schedule: "@daily"}
tokens:
  - {name: support-bot, description: "` + evil + `", consumers: [shop], sinks: [{env_file: {path: ./app.env, key: SUPPORT}}]}
  - {name: shop-export, sinks: [{env_file: {path: ./app.env, key: SHOP}}, {file: {path: "./gone ` + evil + `/token"}}]}
  - {name: kb-writer, sinks: [{env_file: {path: ./touched.env, key: KB}}]}
  - {name: leads, schedule: "@weekly", sinks: [{env_file: {path: ./app.env, key: LEADS}}]}
  - {name: nightly, sinks: [{env_file: {path: ./batch/nightly.env, key: TOKEN}}]}
  - {name: nightly-2, sinks: [{env_file: {path: ./batch/nightly.env, key: TOKEN2}}]}
  - {name: crm-bot, sinks: [{vault_kv: {mount: secret, path: crm, key: bot}}]}
  - {name: crm-sync, sinks: [{vault_kv: {mount: secret, path: crm, key: sync}}]}
  - {name: nightly-3, sinks: [{env_file: {path: ./batch/nightly.env, key: TOKEN3}}]}
`
	h := newHost(t, "")
	h.env = append(h.env, "VAULT_TOKEN=nobodys")
	text = strings.ReplaceAll(text, "%DIR%", h.dir)
	for _, dir := range []string{"gone " + evil, "flags", "batch"} {
		if err := os.MkdirAll(filepath.Join(h.dir, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	base, token := h.standIn()
	h.write("rotation.yaml", text+`  - {name: old-widget, sinks: [{env_file: {path: ./app.env, key: OLD}}]}`+"\n")
	h.run()
	h.write("rotation.yaml", text)
	h.do("reload")
	h.do("pause", "leads", "--until", "3h")
	h.do("rotate", "leads")
	h.write("touched.env", "KB=somebody-was-here\n")
	for _, dir := range []string{"gone " + evil, "batch"} {
		if err := os.RemoveAll(filepath.Join(h.dir, dir)); err != nil {
			t.Fatal(err)
		}
	}
	post(t, base+"/api/v2/tokens", token, `{"name": "rotatord/acme/shop-export#9 20280101T000000Z aaaabbbbccccdddd `+evil+`", "scopes": ["knowledge:read"]}`)
	h.do("rotate", "support-bot")
	h.kill()
	h.run() // it looks at the list
	return h
}

// Everything that is wrong is said, and nothing that it says is markup.
func TestFailing(t *testing.T) {
	h := trouble(t)
	b := open(t, desk, h.url)
	b.drawn()
	b.until("the page says it all", `["does not take the token", "holds a value that is none of ours", "is no longer declared", "1 token with this instance's mark that this state never made", "mend the sink", "rotatord adopt kb-writer"].every((s) => document.querySelector("#trouble").innerText.includes(s))`)
	b.until("an outage is one card", `/127\.0\.0\.1:9\S* is out: 2 tokens wait/.test(document.querySelector("#trouble").innerText)`)
	b.until("alike problems are one card", `document.querySelector("#trouble").innerText.includes("nightly and 2 more: none of its sinks is known to hold a working token") && document.querySelector("#trouble").innerText.includes("3 tokens:")`)
	b.says("failing", "are failing", "waits for you", "since ", "breaks its users", "waits for a person, at most until ", "no working token NOW", `onerror=window.evil=1>`)
	if title := eval[string](b, "document.title"); !strings.HasPrefix(title, "(6) rotatord / acme") {
		t.Errorf("the tab says %q", title)
	}
	if order := b.names(); order[len(order)-1] == "shop-export" || !slices.Contains(order[:6], "shop-export") {
		t.Errorf("the most urgent first: %v", order)
	}
	b.do(chromedp.Click(`#states button[data-state="failing"]`))
	if got := b.names(); len(got) != 6 || eval[string](b, "location.hash") != "#state=failing" {
		t.Errorf("failing: %v", got)
	}
	b.do(chromedp.Click(`#states button[data-state=""]`))
	b.do(chromedp.Evaluate(`document.querySelectorAll("#rows .name button").forEach((e) => e.click())`, nil))
	b.says("Error", "Place")
	b.do(chromedp.Evaluate(`document.querySelectorAll("#rows .name button").forEach((e) => e.click())`, nil))
	if got := eval[int](b, `document.querySelectorAll("#app img").length + (window.evil || 0)`); got != 0 {
		t.Error("what an error says became markup")
	}
	if bad := b.contrast(); len(bad) > 0 {
		t.Errorf("hard to read: %q", bad)
	}
	b.shot("failing")
	b.aligned()
	for name, l := range map[string]look{"failing-night": night, "failing-phone": phone} {
		b := open(t, l, h.url)
		b.drawn()
		if over := eval[float64](b, `document.documentElement.scrollWidth - innerWidth`); over > 0 {
			t.Errorf("%s: the page is %v too wide", name, over)
		}
		if bad := b.contrast(); len(bad) > 0 {
			t.Errorf("%s: hard to read: %q", name, bad)
		}
		b.shot(name)
	}

	// Without scripts, the same words.
	b = open(t, look{width: 900, height: 900, noScripts: true}, h.url)
	var text string
	b.do(chromedp.Text("body", &text))
	for _, part := range []string{"TOKEN", "shop-export", "does not take the token", "→ mend the sink", "rotatord adopt kb-writer", "onerror=window.evil=1>"} {
		if !strings.Contains(text, part) {
			t.Errorf("without scripts, %q is missing:\n%s", part, text)
		}
	}
	b.shot("failing-without-scripts")
}

// What changes shows by itself: nobody's place or filter is lost. A daemon that is gone is not mistaken
// for one that is well.
func TestRefresh(t *testing.T) {
	h := aged(t, "ROTATORD_FLEET_SMALL")
	h.run("--sandbox")
	b := open(t, look{width: 1200, height: 500}, h.url+"#sort=name&q=bot")
	b.drawn()
	b.do(chromedp.Evaluate(`scrollTo(0, 200); document.querySelector("#rows .item:nth-child(7) button").focus()`, nil))
	place := `[Math.round(document.activeElement.getBoundingClientRect().top), document.activeElement.textContent, document.querySelector("#q").value, document.querySelector("#sort").value].join()`
	before := eval[string](b, place)
	name := b.names()[2]
	label := `document.querySelector("#rows .item:nth-child(3) .track").getAttribute("aria-label").match(/^generation (\d+)/)[1]`
	old := eval[string](b, label)
	h.do("rotate", name, "--sandbox")
	b.until("the next generation shows by itself", label+" !== "+quoted(old))
	if after := eval[string](b, place); after != before {
		t.Errorf("a refresh moved the reader from %s to %s", before, after)
	}

	// Nothing changed: the daemon says so, and sends nothing.
	b.until("an answer without a body", `performance.getEntriesByType("resource").length > 2`)
	time.Sleep(6 * time.Second)
	b.mu.Lock()
	statuses := slices.Clone(b.statuses[h.url+"api/status.json"])
	b.excused = regexp.MustCompile(`ERR_CONNECTION_REFUSED|ERR_CONNECTION_RESET|ERR_EMPTY_RESPONSE`)
	b.mu.Unlock()
	if !slices.Contains(statuses, http.StatusNotModified) {
		t.Errorf("the answers were %v", statuses)
	}

	h.kill()
	b.until("a daemon that is gone is noticed", `!document.querySelector("#banner").hidden && document.querySelector("#banner").innerText.includes("The daemon does not answer. What you see is of ")`)
	if !eval[bool](b, `(() => { const r = document.querySelector("#banner").getBoundingClientRect(); return scrollY > 50 && r.top >= 0 && r.bottom < innerHeight && document.elementFromPoint(r.left + 20, r.top + 20).id === "banner"; })()`) {
		t.Error("who has scrolled down does not see that the daemon is gone")
	}
	if title := eval[string](b, "document.title"); !strings.HasPrefix(title, "⚠") {
		t.Errorf("the tab says %q", title)
	}
	if eval[float64](b, `Number(getComputedStyle(document.querySelector("#rows")).opacity)`) > 0.5 {
		t.Error("old facts look like fresh ones")
	}
	b.shot("gone")
	h.run("--sandbox")
	b.until("and its return, too", `document.querySelector("#banner").hidden && document.title.startsWith("rotatord")`)
}

// A thousand tokens.
func TestThousand(t *testing.T) {
	h := aged(t, "ROTATORD_FLEET_LARGE")
	h.run("--sandbox")
	time.Sleep(3 * time.Second) // its first reads
	var took []float64
	for range 3 {
		b := open(t, desk, h.url)
		b.drawn()
		took = append(took, eval[float64](b, `performance.getEntriesByName("drawn")[0].startTime`))
	}
	b := open(t, desk, h.url)
	b.drawn()
	b.until("every row is there", `document.querySelectorAll("#rows .item .row").length === 1000`)
	n, rows := eval[int](b, `document.querySelectorAll("#app *").length`), len(b.names())
	t.Logf("1000 tokens: drawn after %.0f ms, of which their facts took %.0f; %d elements, %d rows",
		took, eval[float64](b, `performance.getEntriesByType("resource").find((e) => e.name.endsWith("/api/status.json")).duration`), n, rows)
	if rows != 1000 {
		t.Errorf("%d rows", rows)
	}
	b.shot("thousand")
	t.Logf("filtered after %.0f ms", eval[float64](b, `(() => { const t = performance.now(), q = document.querySelector("#q"); q.value = "billing-agent"; q.dispatchEvent(new Event("input")); document.querySelector("#rows").offsetHeight; return performance.now() - t; })()`))
	b.until("the rest is gone", `document.querySelectorAll("#rows .item").length < 100`)
	if got := b.names(); len(got) < 10 || len(got) > 20 || !strings.HasPrefix(got[0], "billing-agent") {
		t.Errorf("filtered: %v", got)
	}
	b.do(chromedp.Evaluate(`(() => { const q = document.querySelector("#q"); q.value = ""; q.dispatchEvent(new Event("input")); scrollTo(0, 1e6); })()`, nil))
	b.until("the last row is drawn", `document.querySelector("#rows").lastChild.getBoundingClientRect().top < innerHeight`)
	b.shot("thousand-end")
	for name, l := range map[string]look{"thousand-night": {width: 1920, height: 1080, dark: true}, "thousand-phone": phone} {
		b := open(t, l, h.url)
		b.drawn()
		b.shot(name)
	}
}

// Where others reach the address, a browser asks for the token once; the page refreshes itself with it.
func TestLogin(t *testing.T) {
	const first, second = "first-0123456789abcdef", "second-0123456789abcdef"
	h := newHost(t, "version: 1\nmonitor: {token: {file: monitor.token}}\ntokens:\n  - {name: bot, scopes: [leads:read], schedule: \"@daily\", sinks: [{env_file: {path: ./app.env, key: A}}]}\n")
	h.write("monitor.token", first)
	h.standIn()
	h.run()
	b := open(t, desk, strings.Replace(h.url, "//", "//me:"+first+"@", 1))
	b.drawn()
	b.says("bot", "next: bot")
	b.mu.Lock()
	b.excused = regexp.MustCompile(`status of 401`)
	b.mu.Unlock()
	h.write("monitor.token", second)
	b.until("another token is wanted", `document.querySelector("#banner").innerText.includes("It wants the token: load this page again, and log in")`)
}

// Another site, in the same browser on the same machine, gets nothing: no fetch, no frame, no image, no
// script. A link from it leads to the page.
func TestOtherSites(t *testing.T) {
	h := newHost(t, "version: 1\ntokens:\n  - {name: bot, scopes: [leads:read], schedule: \"@daily\", sinks: [{env_file: {path: ./app.env, key: A}}]}\n")
	h.run("--sandbox")
	evil := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprintf(w, `<title>evil</title><iframe id=f src="%[1]s"></iframe><a id=a href="%[1]s">look</a><script>
window.got = [];
const note = (what) => (x) => got.push(what + ": " + x);
fetch("%[1]sapi/status.json").then((r) => r.text()).then(note("cors"), () => note("cors")("nothing"));
fetch("%[1]sapi/status.json", {mode: "no-cors"}).then((r) => r.text()).then((t) => note("no-cors")(t || "nothing"), () => note("no-cors")("nothing"));
fetch("%[1]sapi/status.json", {method: "POST"}).then((r) => r.text()).then(note("post"), () => note("post")("nothing"));
const s = document.createElement("script"); s.src = "%[1]sapi/status.json"; s.onload = () => note("script")("loaded"); s.onerror = () => note("script")("nothing"); document.head.append(s);
</script>`, h.url)
	}))
	defer evil.Close()
	ctx, end := chromedp.NewContext(chrome)
	defer end()
	ctx, late := context.WithTimeout(ctx, time.Minute)
	defer late()
	b := &tab{t: t, ctx: ctx, statuses: map[string][]int64{}}
	b.do(page.BringToFront(), emulation.SetFocusEmulationEnabled(true), chromedp.Navigate(evil.URL))
	b.until("it has tried", "window.got.length >= 4")
	got := eval[[]string](b, "window.got.sort()")
	if strings.Join(got, "; ") != "cors: nothing; no-cors: nothing; post: nothing; script: nothing" {
		t.Errorf("another site got %q", got)
	}
	if framed := eval[bool](b, `(() => { try { return document.querySelector("#f").contentDocument !== null && document.querySelector("#f").contentDocument.title === "rotatord"; } catch { return false; } })()`); framed {
		t.Error("another site framed the page")
	}
	b.do(chromedp.Click("#a"))
	b.drawn()
	b.says("bot")
}
