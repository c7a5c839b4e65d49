//! A browser without a screen, asked over a pipe (the DevTools protocol: objects in JSON, each ended by a NUL).

use std::{
    cell::RefCell,
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use nix::sys::stat::Mode;
use serde_json::{Value, json};

/// How long the browser may take for anything that is asked of it.
const PATIENCE: Duration = Duration::from_secs(60);

/// Chromium with one page open. It ends with this value.
pub(crate) struct Browser {
    child: Child,
    pipe: RefCell<(File, BufReader<File>, u64)>,
    session: String,
    _home: tempfile::TempDir,
}

impl Browser {
    /// Starts it. `enter` is the beginning of a command line that enters a network, as the lab's hints give it.
    pub(crate) fn start(enter: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        let (to, from) = (home.path().join("to"), home.path().join("from"));
        for pipe in [&to, &from] {
            nix::unistd::mkfifo(pipe, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
        }
        let script = format!(
            "exec {enter} chromium --headless --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run --hide-scrollbars \
             --force-device-scale-factor=1 --user-data-dir={} --remote-debugging-pipe about:blank 3<{} 4>{}",
            home.path().join("profile").display(),
            to.display(),
            from.display()
        );
        let mut command = Command::new("setpriv");
        // One that hangs is ended, and what waits for its answer ends too.
        let bounds = ["--pdeathsig", "KILL", "--", "timeout", "-s", "KILL", "300"];
        command.args(bounds).args(["sh", "-c", &script]).process_group(0);
        let log = File::create(home.path().join("log")).unwrap();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let child = command.spawn().unwrap();
        // Each waits until the other end is open, which the shell does in the same order.
        let to = File::options().write(true).open(&to).unwrap();
        let from = BufReader::new(File::open(&from).unwrap());
        let mut browser = Self { child, pipe: RefCell::new((to, from, 0)), session: String::new(), _home: home };
        let targets = browser.ask("Target.getTargets", json!({}));
        let page = targets["targetInfos"].as_array().unwrap().iter().find(|target| target["type"] == "page").unwrap();
        let attached = browser.ask("Target.attachToTarget", json!({ "targetId": page["targetId"], "flatten": true }));
        browser.session = attached["sessionId"].as_str().unwrap().to_owned();
        browser
    }

    /// Asks for something that has to work, and returns its result.
    pub(crate) fn ask(&self, method: &str, parameters: Value) -> Value {
        let answer = self.answer(method, parameters);
        assert!(answer.get("error").is_none(), "{method}: {answer}");
        answer["result"].clone()
    }

    /// Asks for something and waits for the answer, with its result or error; events are passed over.
    fn answer(&self, method: &str, parameters: Value) -> Value {
        let mut pipe = self.pipe.borrow_mut();
        let (to, from, last) = &mut *pipe;
        *last += 1;
        let mut message = json!({ "id": *last, "method": method, "params": parameters });
        if !self.session.is_empty() {
            message["sessionId"] = self.session.clone().into();
        }
        to.write_all(format!("{message}\0").as_bytes()).unwrap();
        loop {
            let mut answer = Vec::new();
            assert!(from.read_until(0, &mut answer).unwrap() > 0, "the browser ended before it answered {method}");
            answer.pop();
            let answer: Value = serde_json::from_slice(&answer).unwrap();
            if answer["id"] == *last {
                return answer;
            }
        }
    }

    /// The value of an expression in the page.
    pub(crate) fn value(&self, expression: &str) -> Value {
        let asked = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let answer = self.ask("Runtime.evaluate", asked);
        assert!(answer.get("exceptionDetails").is_none(), "{expression}: {answer}");
        answer["result"]["value"].clone()
    }

    /// Waits until an expression in the page is true.
    pub(crate) fn until(&self, expression: &str) {
        let begun = Instant::now();
        // The page itself pauses between two looks; one that is about to be another cannot answer.
        let look = format!("new Promise(done => setTimeout(done, 50)).then(() => {expression})");
        let asked = json!({ "expression": look, "returnByValue": true, "awaitPromise": true });
        while self.answer("Runtime.evaluate", asked.clone())["result"]["result"]["value"] != true {
            assert!(begun.elapsed() < PATIENCE, "never: {expression}\n{}", self.value("document.body.innerText"));
        }
    }

    /// Opens the status page in a window of a size in pixels, in light or dark, and waits until it has drawn.
    pub(crate) fn open(&self, url: &str, (width, height): (u32, u32), theme: &str) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.ask("Emulation.setDeviceMetricsOverride", size);
        let scheme = json!({ "features": [{ "name": "prefers-color-scheme", "value": theme }] });
        self.ask("Emulation.setEmulatedMedia", scheme);
        self.ask("Page.navigate", json!({ "url": url }));
        self.until("document.body?.dataset.drawn === 'yes'");
        self.value(include_str!("reader.js"));
    }

    /// Presses and releases a key.
    pub(crate) fn press(&self, key: &str) {
        let code = match key {
            "Tab" => 9,
            "Enter" => 13,
            "End" => 35,
            "Home" => 36,
            "ArrowLeft" => 37,
            "ArrowUp" => 38,
            "ArrowRight" => 39,
            "ArrowDown" => 40,
            other => panic!("{other} has no code here"),
        };
        let text = if key == "Enter" { "\r" } else { "" };
        for kind in ["keyDown", "keyUp"] {
            let event = json!({ "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code, "text": text });
            self.ask("Input.dispatchKeyEvent", event);
        }
    }

    /// Writes a picture of what is in the window.
    pub(crate) fn picture(&self, path: &Path) {
        let answer = self.ask("Page.captureScreenshot", json!({ "format": "png" }));
        let mut decode = Command::new("base64").arg("-d").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut pipe = decode.stdin.take().unwrap();
        let text = answer["data"].as_str().unwrap().to_owned();
        let writing = std::thread::spawn(move || pipe.write_all(text.as_bytes()));
        fs::write(path, decode.wait_with_output().unwrap().stdout).unwrap();
        writing.join().unwrap().unwrap();
    }

    /// What a screen reader is told: role, name and value of each thing on the page, in order, without what is for the eye only.
    pub(crate) fn spoken(&self) -> Vec<(String, String)> {
        let tree = self.ask("Accessibility.getFullAXTree", json!({}));
        let nodes = tree["nodes"].as_array().unwrap().iter().filter(|node| node["ignored"] == false);
        let text = |node: &Value, key: &str| node[key]["value"].as_str().unwrap_or_default().to_owned();
        nodes.map(|node| (text(node, "role"), text(node, "name"))).collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The whole group: the browser has processes of its own.
        let group = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        let _ = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL);
        let _ = self.child.wait();
    }
}
