package browser

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

var chrome context.Context // the one browser of all tests; each has a tab of its own

func TestMain(m *testing.M) {
	profile, err := os.MkdirTemp("", "rotatord-browser-")
	if err != nil {
		panic(err)
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath("/usr/bin/chromium"), chromedp.UserDataDir(profile), chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-dev-shm-usage", true),
		chromedp.WSURLReadTimeout(90*time.Second),
	)
	alloc, stop := chromedp.NewExecAllocator(context.Background(), options...)
	var end context.CancelFunc
	chrome, end = chromedp.NewContext(alloc)
	code := 1
	if err := chromedp.Run(chrome); err == nil {
		code = m.Run()
	} else {
		fmt.Fprintln(os.Stderr, "start chromium:", err)
	}
	end()
	stop()
	os.RemoveAll(profile)
	os.Exit(code)
}

// tab is one page in the browser, and everything that it complains about or asks for.
type tab struct {
	t   *testing.T
	ctx context.Context

	mu       sync.Mutex
	bad      []string
	asked    []string
	statuses map[string][]int64
	excused  *regexp.Regexp
}

// look is how a person looks: at what size, and in which light.
type look struct {
	width, height int64
	phone, dark   bool
	noScripts     bool
	reduced       bool
}

var (
	desk  = look{width: 1440, height: 900}
	night = look{width: 1440, height: 900, dark: true}
	phone = look{width: 390, height: 844, phone: true}
)

func open(t *testing.T, l look, url string, before ...chromedp.Action) *tab {
	t.Helper()
	ctx, end := chromedp.NewContext(chrome)
	t.Cleanup(end)
	ctx, late := context.WithTimeout(ctx, 3*time.Minute)
	t.Cleanup(late)
	b := &tab{t: t, ctx: ctx, statuses: map[string][]int64{}}
	chromedp.ListenTarget(ctx, func(ev any) {
		b.mu.Lock()
		defer b.mu.Unlock()
		switch ev := ev.(type) {
		case *runtime.EventExceptionThrown:
			b.bad = append(b.bad, "exception: "+ev.ExceptionDetails.Error())
		case *runtime.EventConsoleAPICalled:
			b.bad = append(b.bad, fmt.Sprintf("console.%s: %s", ev.Type, ev.Args[0].Value))
		case *log.EventEntryAdded:
			b.bad = append(b.bad, fmt.Sprintf("%s %s: %s %s", ev.Entry.Source, ev.Entry.Level, ev.Entry.Text, ev.Entry.URL))
		case *network.EventRequestWillBeSent:
			b.asked = append(b.asked, ev.Request.URL)
		case *network.EventResponseReceived:
			b.statuses[ev.Response.URL] = append(b.statuses[ev.Response.URL], ev.Response.Status)
		}
	})
	scheme, motion := "light", "no-preference"
	if l.dark {
		scheme = "dark"
	}
	if l.reduced {
		motion = "reduce"
	}
	scale := 1.0
	if l.phone {
		scale = 2
	}
	actions := []chromedp.Action{
		network.Enable(), log.Enable(), page.BringToFront(), emulation.SetFocusEmulationEnabled(true), // a hidden page rests
		emulation.SetDeviceMetricsOverride(l.width, l.height, scale, l.phone),
		emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{
			{Name: "prefers-color-scheme", Value: scheme}, {Name: "prefers-reduced-motion", Value: motion},
		}),
		emulation.SetScriptExecutionDisabled(l.noScripts),
	}
	b.do(append(append(actions, before...), chromedp.Navigate(url))...)
	t.Cleanup(func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, what := range b.bad {
			if b.excused == nil || !b.excused.MatchString(what) {
				t.Errorf("the browser complains: %s", what)
			}
		}
		u, _, _ := strings.Cut(strings.TrimPrefix(url, "http://"), "/")
		u = u[strings.LastIndex(u, "@")+1:]
		for _, asked := range b.asked {
			if !strings.Contains(asked, u) && !strings.HasPrefix(asked, "data:") {
				t.Errorf("the page asked another origin: %s", asked)
			}
		}
	})
	return b
}

func (b *tab) do(actions ...chromedp.Action) {
	b.t.Helper()
	if err := chromedp.Run(b.ctx, actions...); err != nil {
		b.t.Fatal(err)
	}
}

// eval returns what a script comes to.
func eval[T any](b *tab, script string) (out T) {
	b.t.Helper()
	b.do(chromedp.Evaluate(script, &out))
	return out
}

// until waits for a script to come true.
func (b *tab) until(what, script string) {
	b.t.Helper()
	for end := time.Now().Add(40 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if eval[bool](b, "!!("+script+")") {
			return
		}
		if time.Now().After(end) {
			b.t.Fatalf("it never came to this: %s\n%s", what, eval[string](b, "document.visibilityState + document.body.innerText.slice(0, 3000)"))
		}
	}
}

func (b *tab) drawn() {
	b.t.Helper()
	b.until("the page is drawn", `performance.getEntriesByName("drawn").length`)
}

func (b *tab) says(parts ...string) {
	b.t.Helper()
	text := eval[string](b, "document.body.innerText")
	for _, p := range parts {
		if !strings.Contains(text, p) {
			b.t.Errorf("the page does not say %q:\n%.3000s", p, text)
		}
	}
}

// names are the tokens that are shown, in their order.
func (b *tab) names() []string {
	b.t.Helper()
	return eval[[]string](b, `[...document.querySelectorAll("#rows .item .name button")].map((e) => e.textContent)`)
}

// keys types.
func (b *tab) keys(text string) {
	b.t.Helper()
	b.do(chromedp.KeyEvent(text))
}

// aligned holds that the line of now is at one place on the axis and in all rows, within the picture.
func (b *tab) aligned() {
	b.t.Helper()
	at := eval[[]float64](b, `(() => {
		const a = document.querySelector("#axis"), w = a.getBoundingClientRect(), n = a.querySelector(".now").getBoundingClientRect();
		const tracks = [...document.querySelectorAll(".track")].slice(0, 9).map((t) => t.getBoundingClientRect().left + parseFloat(getComputedStyle(t, "::after").left));
		return [w.left, w.right, (n.left + n.right) / 2, Math.min(...tracks), Math.max(...tracks)];
	})()`)
	if at[2] < at[0] || at[2] > at[1] || at[4]-at[3] > 1 || math.Abs(at[3]-at[2]) > 2 {
		b.t.Errorf("the axis from %v to %v has its now at %v, the rows have it from %v to %v", at[0], at[1], at[2], at[3], at[4])
	}
}

// slash presses the key as a keyboard does: who takes the press away takes the character, too.
func (b *tab) slash() {
	b.t.Helper()
	b.do(
		input.DispatchKeyEvent(input.KeyDown).WithKey("/").WithCode("Slash").WithText("/").WithWindowsVirtualKeyCode(191),
		input.DispatchKeyEvent(input.KeyUp).WithKey("/").WithCode("Slash").WithWindowsVirtualKeyCode(191),
	)
}

// shot leaves a picture for people.
func (b *tab) shot(name string) {
	b.t.Helper()
	var png []byte
	b.do(chromedp.ActionFunc(func(ctx context.Context) (err error) {
		png, err = page.CaptureScreenshot().Do(ctx)
		return err
	}))
	dir := os.Getenv("ROTATORD_PICTURES")
	if dir == "" {
		dir = b.t.TempDir()
	}
	if err := os.WriteFile(filepath.Join(dir, name+".png"), png, 0o600); err != nil {
		b.t.Error(err)
	}
}

// contrast returns every text on the screen that is harder to read than WCAG's AA allows.
func (b *tab) contrast() []string {
	b.t.Helper()
	return eval[[]string](b, `(() => {
		const parse = (c) => { const m = c.match(/[\d.]+/g).map(Number); if (c.startsWith("color(srgb")) return [m[0] * 255, m[1] * 255, m[2] * 255, m[3] ?? 1]; return [m[0], m[1], m[2], m[3] ?? 1]; };
		const over = (a, b) => [0, 1, 2].map((i) => a[i] * a[3] + b[i] * (1 - a[3])).concat(1);
		const light = (c) => [0, 1, 2].map((i) => { const v = c[i] / 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; }).reduce((s, v, i) => s + v * [0.2126, 0.7152, 0.0722][i], 0);
		const bad = new Set();
		let seen = 0;
		const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
		while (walk.nextNode()) {
			const e = walk.currentNode.parentElement, text = walk.currentNode.textContent.trim();
			if (!text || !e.checkVisibility({ contentVisibilityAuto: true }) || /NOSCRIPT|SCRIPT|STYLE|OPTION/.test(e.tagName)) continue;
			const stack = [];
			for (let p = e; p; p = p.parentElement) stack.unshift(parse(getComputedStyle(p).backgroundColor));
			const back = stack.reduce((a, c) => over(c, a), [255, 255, 255, 1]);
			const s = getComputedStyle(e), front = over(parse(s.color), back);
			const [x, y] = [light(front), light(back)].sort((p, q) => q - p);
			const size = parseFloat(s.fontSize), large = size >= 24 || (size >= 18.66 && Number(s.fontWeight) >= 700);
			seen++;
			if ((x + 0.05) / (y + 0.05) < (large ? 3 : 4.5)) bad.add(((x + 0.05) / (y + 0.05)).toFixed(2) + " " + e.className + " " + text.slice(0, 40));
		}
		if (seen < 5) bad.add("only " + seen + " texts were looked at");
		return [...bad];
	})()`)
}

// host is a folder in which a daemon runs.
type host struct {
	t    *testing.T
	dir  string
	env  []string
	port string
	cmd  *exec.Cmd
	url  string
}

// rotatord is the program to look at.
func rotatord(t *testing.T) string {
	t.Helper()
	path := os.Getenv("ROTATORD")
	if path == "" {
		t.Fatal("ROTATORD must name the program: run .ci/browser/run")
	}
	return path
}

func newHost(t *testing.T, config string) *host {
	t.Helper()
	h := &host{t: t, dir: t.TempDir()}
	h.write("rotation.yaml", config)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, h.port, _ = net.SplitHostPort(l.Addr().String())
	l.Close()
	h.url = "http://127.0.0.1:" + h.port + "/"
	return h
}

func (h *host) write(name, text string) {
	h.t.Helper()
	path := filepath.Join(h.dir, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) command(args ...string) *exec.Cmd {
	cmd := exec.Command(rotatord(h.t), args...)
	cmd.Dir = h.dir
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + h.dir, "ROTATORD_STATE_DIR=" + filepath.Join(h.dir, "state")}, h.env...)
	return cmd
}

// run starts the daemon, and returns when it is ready.
func (h *host) run(args ...string) {
	h.t.Helper()
	h.cmd = h.command(append([]string{"run", "--listen", "127.0.0.1:" + h.port}, args...)...)
	out, err := os.OpenFile(filepath.Join(h.dir, "log.txt"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		h.t.Fatal(err)
	}
	defer out.Close()
	h.cmd.Stdout, h.cmd.Stderr = out, out
	if err := h.cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(h.kill)
	for end := time.Now().Add(40 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		res, err := http.Get("http://127.0.0.1:" + h.port + "/readyz")
		if err == nil {
			res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return
			}
		}
		if time.Now().After(end) {
			text, _ := os.ReadFile(out.Name())
			h.t.Fatalf("the daemon is not ready: %v\n%s", err, text)
		}
	}
}

func (h *host) kill() {
	if h.cmd != nil && h.cmd.ProcessState == nil {
		h.cmd.Process.Signal(syscall.SIGKILL)
		h.cmd.Wait()
	}
}

// do runs a command, which must work.
func (h *host) do(args ...string) string {
	h.t.Helper()
	out, err := h.command(args...).CombinedOutput()
	if err != nil {
		h.t.Fatalf("rotatord %v: %v\n%s", args, err, out)
	}
	return string(out)
}

// standIn starts a SiteGPT of the host's own.
func (h *host) standIn() (base, token string) {
	h.t.Helper()
	cmd := exec.Command(rotatord(h.t), "sandbox", "--listen", "127.0.0.1:0")
	cmd.Dir, cmd.Env = h.dir, []string{"HOME=" + h.dir}
	out, err := cmd.StdoutPipe()
	if err != nil {
		h.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	if _, err := fmt.Fscanf(out, "export SITEGPT_API_BASE=%s\nexport SITEGPT_API_TOKEN=%s\n", &base, &token); err != nil {
		h.t.Fatal(err)
	}
	h.env = append(h.env, "SITEGPT_API_BASE="+base, "SITEGPT_API_TOKEN="+token)
	return base, token
}

// post asks the stand-in for something behind the daemon's back.
func post(t *testing.T, url, token, body string) {
	t.Helper()
	req, err := http.NewRequest(http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode >= 300 {
		t.Fatalf("%s answers %s", url, res.Status)
	}
}

// aged is a host whose tokens have lived for weeks, in the folder in which cmd/rotatord's
// TestAFleetOfAge left them.
func aged(t *testing.T, which string) *host {
	t.Helper()
	h := newHost(t, "")
	if h.dir = os.Getenv(which); h.dir == "" {
		t.Fatalf("%s must name a fleet's folder: run .ci/browser/run", which)
	}
	return h
}

func quoted(s string) string {
	b, _ := json.Marshal(s)
	return string(b)
}
