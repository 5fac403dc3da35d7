//! Chromium without a window, controlled over a pipe by the Chrome DevTools Protocol.

use std::{env, path::PathBuf, process::Stdio, time::Duration};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::{sleep, timeout},
};

/// How long a condition on the page may take, also on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(120);

pub struct Browser {
    _child: Child,
    commands: ChildStdin,
    messages: BufReader<ChildStdout>,
    session: Option<String>,
    last: u64,
    /// Errors in the console of the page.
    pub errors: Vec<String>,
}

/// The path of Chromium or Chrome: `CHROMIUM`, or else the first of the usual names in PATH.
fn find() -> Option<PathBuf> {
    if let Some(path) = env::var_os("CHROMIUM") {
        return Some(path.into());
    }
    let names = [
        "chromium",
        "chromium-browser",
        "google-chrome",
        "google-chrome-stable",
    ];
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .flat_map(|folder| names.map(|name| folder.join(name)))
        .find(|path| path.is_file())
}

impl Browser {
    /// `profile` is an empty folder for its files.
    pub async fn start(profile: PathBuf) -> Self {
        let chromium = find().expect("Chromium is not installed: apt-get install chromium");
        let _ = std::fs::remove_dir_all(&profile);
        // It reads commands from file descriptor 3 and writes messages to 4, and ends with the pipe.
        let mut child = Command::new("sh")
            .args(["-c", "exec \"$0\" \"$@\" 3<&0 4>&1 </dev/null >/dev/null"])
            .arg(chromium)
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--no-first-run",
            ])
            .args([
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
            ])
            .arg("--remote-debugging-pipe")
            .arg(format!("--user-data-dir={}", profile.display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("sh is there");
        let commands = child.stdin.take().expect("it is piped");
        let messages = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut browser = Self {
            _child: child,
            commands,
            messages,
            session: None,
            last: 0,
            errors: Vec::new(),
        };
        let target = browser
            .call("Target.createTarget", json!({"url": "about:blank"}))
            .await;
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let attached = browser.call("Target.attachToTarget", attach).await;
        browser.session = attached["sessionId"].as_str().map(Into::into);
        for domain in ["Runtime", "Log", "Page"] {
            browser.call(&format!("{domain}.enable"), json!({})).await;
        }
        browser
    }

    pub async fn open(&mut self, url: &str) {
        self.call("Page.navigate", json!({"url": url})).await;
    }

    /// The size of the page in CSS pixels, and whether it prefers dark colours.
    pub async fn resize(&mut self, width: u32, height: u32, dark: bool) {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600});
        self.call("Emulation.setDeviceMetricsOverride", size).await;
        let value = if dark { "dark" } else { "light" };
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": value}]});
        self.call("Emulation.setEmulatedMedia", features).await;
    }

    /// The value of a JavaScript expression.
    pub async fn value(&mut self, expression: &str) -> Value {
        let evaluate = json!({"expression": expression, "returnByValue": true});
        let evaluated = self.call("Runtime.evaluate", evaluate).await;
        evaluated["result"]["value"].clone()
    }

    /// Waits until an expression is true.
    pub async fn until(&mut self, expression: &str) {
        let is_true = async {
            while self.value(expression).await != json!(true) {
                sleep(Duration::from_millis(200)).await;
            }
        };
        if timeout(TIMEOUT, is_true).await.is_err() {
            let body = self.value("document.body.innerText").await;
            panic!("{expression} is not true of the page: {body}");
        }
    }

    /// A screenshot of the page as PNG, in Base64.
    pub async fn screenshot(&mut self) -> String {
        let shot = self
            .call(
                "Page.captureScreenshot",
                json!({"captureBeyondViewport": true}),
            )
            .await;
        shot["data"].as_str().expect("there is a screenshot").into()
    }

    async fn call(&mut self, method: &str, params: Value) -> Value {
        self.last += 1;
        let mut command = json!({"id": self.last, "method": method, "params": params});
        if let Some(session) = &self.session {
            command["sessionId"] = session.clone().into();
        }
        let mut bytes = command.to_string().into_bytes();
        bytes.push(0);
        self.commands.write_all(&bytes).await.expect("it runs");
        loop {
            let mut message = Vec::new();
            let read = timeout(TIMEOUT, self.messages.read_until(0, &mut message));
            read.await.expect("it answers").expect("it runs");
            message.pop();
            let message: Value = serde_json::from_slice(&message).expect("it is JSON");
            if message["id"] == self.last {
                assert!(message["error"].is_null(), "{method}: {message}");
                return message["result"].clone();
            }
            self.take_note(&message);
        }
    }

    fn take_note(&mut self, message: &Value) {
        let params = &message["params"];
        let is_error = match message["method"].as_str() {
            Some("Runtime.exceptionThrown") => true,
            Some("Runtime.consoleAPICalled") => params["type"] == "error",
            Some("Log.entryAdded") => params["entry"]["level"] == "error",
            _ => false,
        };
        if is_error {
            self.errors.push(params.to_string());
        }
    }
}
