//! A server: how to start it, the requests to it, and the resources that it uses.

use std::{
    env,
    fs::{self, File},
    io::{self, Write},
    iter::successors,
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, System};
use tempfile::TempDir;
use ureq::{
    Agent,
    http::{HeaderMap, Method, Request},
};

use crate::{cgroup::Cgroup, process::Process};

/// How long a server may take to start: it compiles the component, with a limit of 500m at half
/// speed.
const START_TIMEOUT: Duration = Duration::from_secs(180);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
const HEALTH_TIMEOUT: Duration = Duration::from_secs(1);
const SPIN_HEALTH: &str = "/.well-known/spin/health";

/// The program that serves a Spin application.
pub enum Runner {
    Spin(PathBuf),
    EmbeddedHost(PathBuf),
}

impl Runner {
    /// The Spin that the environment variable `SPIN` names, as a path or as a command on `PATH`.
    /// Without one, the embedded host that was built beside this program.
    pub fn from_env() -> Result<Self> {
        if let Some(spin) = env::var_os("SPIN").filter(|it| !it.is_empty()) {
            let spin = Self::Spin(spin.into());
            let version = spin.version().context(
                "`SPIN` names the Spin to use: install one (https://spinframework.dev/install), \
                 or unset it to use the embedded host",
            )?;
            let is_spin = version.starts_with("spin ");
            ensure!(
                is_spin,
                "`SPIN` names a program that is not Spin but \"{version}\""
            );
            return Ok(spin);
        }
        // The programs of tests are in a folder of their own.
        let this = env::current_exe()?;
        let folder = this.ancestors().skip(1).find(|it| !it.ends_with("deps"));
        let folder = folder.context("this program is in no folder")?;
        Ok(Self::EmbeddedHost(folder.join("embedded-host")))
    }

    fn path(&self) -> &Path {
        let (Self::Spin(path) | Self::EmbeddedHost(path)) = self;
        path
    }

    /// The output of `--version`, in one line.
    pub fn version(&self) -> Result<String> {
        let output = Command::new(self.path()).arg("--version").output();
        let output = output.with_context(|| format!("cannot run {}", self.path().display()))?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }
}

/// The manifest of the component.
pub fn manifest() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../spin.toml"))
}

/// How to start a server.
pub struct Launch {
    command: Command,
    /// The address of a [`Runner`]: by default a free port of the loopback interface.
    pub listen: String,
    /// Counts and limits its CPU from the start, as for a pod: a server counts its threads by the
    /// limit.
    pub cgroup: Option<Cgroup>,
    /// How many file descriptors it may have open.
    pub descriptors: Option<u32>,
    /// Where it serves, as `http://host:port`; `None` if it is a [`Runner`], which prints it.
    url: Option<String>,
    /// The folder for its log and the files of Spin.
    folder: TempDir,
}

impl Launch {
    /// Serves the application of `manifest`.
    ///
    /// # Errors
    /// If the embedded host was not built.
    pub fn new(runner: &Runner, manifest: &Path) -> Result<Self> {
        let mut launch = Self::of(Command::new(runner.path()), None)?;
        let command = &mut launch.command;
        match runner {
            Runner::Spin(_) => {
                let state = launch.folder.path().join("spin");
                command.args(["up", "--quiet", "--from"]).arg(manifest);
                command.arg("--log-dir").arg(state.join("logs"));
                command.arg("--state-dir").arg(state);
            }
            Runner::EmbeddedHost(host) => {
                let missing = || format!("{} does not exist: run `make test`", host.display());
                ensure!(host.exists(), missing());
                command.arg("--manifest").arg(manifest);
            }
        }
        Ok(launch)
    }

    /// Any other program, which serves at `url` and responds there with any status below 500.
    pub fn program(command: Command, url: &str) -> Result<Self> {
        Self::of(command, Some(url.to_owned()))
    }

    fn of(command: Command, url: Option<String>) -> Result<Self> {
        Ok(Self {
            command,
            listen: "127.0.0.1:0".to_owned(),
            cgroup: None,
            descriptors: None,
            url,
            folder: TempDir::new()?,
        })
    }

    /// Sets variables of the application in place of the defaults in its manifest.
    pub fn variables(mut self, variables: &[(&str, &str)]) -> Self {
        for (name, value) in variables {
            let name = format!("SPIN_VARIABLE_{}", name.to_uppercase());
            self.command.env(name, value);
        }
        self
    }

    /// Starts the server and waits until its health endpoint responds.
    ///
    /// # Errors
    /// If the server ends, or does not respond in time, with its log.
    pub fn start(mut self) -> Result<Server> {
        if self.url.is_none() {
            self.command.args(["--listen", &self.listen]);
        }
        let mut command = self.confined();
        let log = File::create(self.folder.path().join("log"))?;
        command.stdin(Stdio::null());
        command.stdout(log.try_clone()?).stderr(log);
        let config = Agent::config_builder().http_status_as_error(false);
        let config = config.timeout_global(Some(REQUEST_TIMEOUT)).proxy(None);
        let mut server = Server {
            process: Process::spawn(command)?,
            cgroup: self.cgroup,
            folder: self.folder,
            health_path: self.url.as_ref().map_or(SPIN_HEALTH, |_| "/"),
            url: self.url.unwrap_or_default(),
            agent: config.build().into(),
        };
        if let Err(error) = server.wait_until_healthy() {
            let program = Path::new(self.command.get_program()).display();
            bail!("{program} {error:#}: {}", server.log()?.trim());
        }
        Ok(server)
    }

    /// Runs the command within its limits. If the system has `setpriv`, as Linux does, it ends
    /// together with the thread that started it, even when that is killed.
    fn confined(&self) -> Command {
        let mut script = String::from("set -e\n");
        if let Some(descriptors) = self.descriptors {
            script += &format!("ulimit -n {descriptors}\n");
        }
        for procs in self.cgroup.iter().flat_map(Cgroup::procs_files) {
            script += &format!("echo 0 >{}\n", procs.display());
        }
        script += "if command -v setpriv >/dev/null; \
                   then set -- setpriv --pdeathsig TERM \"$@\"; fi\n\
                   exec \"$@\"";
        let mut confined = Command::new("sh");
        confined.args(["-c", &script, "sh"]);
        confined.arg(self.command.get_program());
        confined.args(self.command.get_args());
        let variables = self.command.get_envs();
        confined.envs(variables.filter_map(|(name, value)| Some((name, value?))));
        confined
    }
}

/// A running server, which is ended when this is dropped.
pub struct Server {
    // Ends before its cgroup and its folder are removed.
    pub process: Process,
    cgroup: Option<Cgroup>,
    folder: TempDir,
    /// As `http://host:port`.
    url: String,
    health_path: &'static str,
    agent: Agent,
}

/// A whole response.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: String,
}

/// The resources of the processes of a server.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// In bytes.
    pub resident: u64,
    pub threads: u64,
    /// Open file descriptors.
    pub descriptors: u64,
}

impl Server {
    /// Serves the component with these variables, by the program that [`Runner::from_env`] finds.
    ///
    /// # Panics
    /// If it does not start: for tests.
    pub fn start(variables: &[(&str, &str)]) -> Self {
        let launch = Runner::from_env().and_then(|runner| Launch::new(&runner, manifest()));
        let server = launch.and_then(|launch| launch.variables(variables).start());
        server.expect("a server")
    }

    fn wait_until_healthy(&mut self) -> Result<()> {
        let start = Instant::now();
        while start.elapsed() < START_TIMEOUT {
            if let Some(status) = self.process.status()? {
                bail!("ended with {status}");
            }
            if self.url.is_empty() {
                let log = self.log()?;
                let mut lines = log.split_inclusive('\n');
                // Whole lines only.
                let url = lines.find_map(|it| it.strip_prefix("Serving ")?.strip_suffix('\n'));
                self.url = url.unwrap_or_default().to_owned();
            }
            if !self.url.is_empty() && self.is_healthy() {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(20));
        }
        bail!("is not healthy after {START_TIMEOUT:?}")
    }

    /// The address as `host:port`.
    pub fn address(&self) -> &str {
        self.url.trim_start_matches("http://")
    }

    /// The URL of `path`, which begins with a slash and may have a query.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    /// The URL of the server's own health endpoint.
    pub fn health_url(&self) -> String {
        self.url(self.health_path)
    }

    /// Whether the health endpoint responds within a second, on a new connection as a kubelet opens
    /// it.
    pub fn is_healthy(&self) -> bool {
        let request = ureq::get(self.health_url()).config();
        let request = request.timeout_global(Some(HEALTH_TIMEOUT)).proxy(None);
        let response = request.http_status_as_error(false).build().call();
        response.is_ok_and(|response| !response.status().is_server_error())
    }

    /// The response to a GET.
    ///
    /// # Panics
    /// If there is no whole response within a minute: for tests.
    pub fn get(&self, path: &str) -> Response {
        self.request(Method::GET, path)
    }

    /// The response to a request without a body.
    ///
    /// # Panics
    /// If there is no whole response within a minute: for tests.
    pub fn request(&self, method: Method, path: &str) -> Response {
        let what = format!("{method} {path}");
        let request = Request::builder().method(method).uri(self.url(path));
        let response = self.agent.run(request.body(()).expect(&what));
        let mut response = response.expect(&what);
        Response {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            body: response.body_mut().read_to_string().expect(&what),
        }
    }

    /// A connection, on which reading fails after a minute without a byte.
    pub fn connect(&self) -> io::Result<TcpStream> {
        let connection = TcpStream::connect(self.address())?;
        connection.set_read_timeout(Some(REQUEST_TIMEOUT))?;
        Ok(connection)
    }

    /// Sends a GET over a connection of its own, which the server closes after the response.
    pub fn send(&self, target: &str) -> io::Result<TcpStream> {
        let mut connection = self.connect()?;
        let headers = "Host: localhost\r\nConnection: close";
        write!(connection, "GET {target} HTTP/1.1\r\n{headers}\r\n\r\n")?;
        Ok(connection)
    }

    /// The output of the server so far.
    pub fn log(&self) -> Result<String> {
        Ok(fs::read_to_string(self.folder.path().join("log"))?)
    }

    /// The CPU time that its processes have used: exact if the server has a cgroup, otherwise in
    /// steps of up to 10 ms.
    pub fn cpu_time(&self) -> Result<Duration> {
        if let Some(cgroup) = &self.cgroup {
            return cgroup.used();
        }
        let system = processes(ProcessRefreshKind::nothing().with_cpu());
        let processes = self.own(&system);
        let millis = processes.map(sysinfo::Process::accumulated_cpu_time);
        Ok(Duration::from_millis(millis.sum()))
    }

    /// The resources of its processes now. On Linux only.
    ///
    /// # Errors
    /// On another system, or if the server has ended.
    pub fn usage(&self) -> Result<Usage> {
        let system = processes(ProcessRefreshKind::nothing().with_memory().with_tasks());
        let mut usage = Usage::default();
        for process in self.own(&system) {
            let threads = process.tasks().context("Linux alone counts threads")?;
            let descriptors = process.open_files().context("no descriptors")?;
            usage.resident += process.memory();
            usage.threads += threads.len() as u64;
            usage.descriptors += descriptors as u64;
        }
        ensure!(usage.resident > 0, "the server has ended");
        Ok(usage)
    }

    /// Its processes: Spin serves in a child of the one that was started.
    fn own<'a>(&self, system: &'a System) -> impl Iterator<Item = &'a sysinfo::Process> {
        let server = Pid::from_u32(self.process.id());
        let parent = |pid: &Pid| system.process(*pid).and_then(sysinfo::Process::parent);
        let is_own = move |pid| successors(Some(pid), parent).any(|pid| pid == server);
        let processes = system.processes().values();
        processes.filter(move |it| it.thread_kind().is_none() && is_own(it.pid()))
    }
}

fn processes(what: ProcessRefreshKind) -> System {
    let mut system = System::new();
    system.refresh_processes_specifics(ProcessesToUpdate::All, true, what);
    system
}

impl Response {
    /// A header; empty if there is none of that name.
    ///
    /// # Panics
    /// If it is not ASCII.
    pub fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value.map_or("", |value| value.to_str().expect("a header in ASCII"))
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// If it is not JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }
}
