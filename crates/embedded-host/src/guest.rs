//! The guest: a compiled component, and a new instance of it for every request.

use std::{collections::BTreeMap, fs, path::Path, sync::Arc, thread, time::Duration};

use hyper::{Request, Response, body::Incoming};
use tokio::sync::oneshot;
use wasi_preview1_component_adapter_provider::{
    WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME as ADAPTER_NAME,
    WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER as ADAPTER,
};
use wasmtime::{
    Cache, Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, Result, Store,
    bail,
    component::{Component, HasSelf, Linker, ResourceTable},
    ensure,
    error::Context,
    format_err,
};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{
    RequestOptions, WasiBody, WasiHttpCtx, WasiHttpCtxView, WasiHttpHooks, WasiHttpView,
    p2::{
        bindings::{ProxyPre, http::types::Scheme},
        body::HyperOutgoingBody,
    },
};
use wit_component::ComponentEncoder;

mod bindings {
    wasmtime::component::bindgen!({ path: "wit", world: "guest" });
}
use bindings::fermyon::spin::variables;

const EPOCH_TICK: Duration = Duration::from_millis(10);

/// As Spin does, no deadline ends a guest. It is counted from the current epoch and must not
/// overflow.
const NO_DEADLINE: u64 = u64::MAX / 2;

/// As many guests as Spin runs at once. Beyond them both respond with 500 and an empty body.
const MAX_INSTANCES: u32 = 1000;

/// The first bytes of a core module; a component has another version.
const CORE_MODULE: &[u8] = b"\0asm\x01\0\0\0";

/// A component that is ready to serve requests.
pub struct Guest {
    component: ProxyPre<State>,
    variables: Arc<BTreeMap<String, String>>,
}

impl Guest {
    /// Compiles the component or core module at `path`.
    ///
    /// # Errors
    /// If it is not WebAssembly, or needs what this host does not provide; if Wasmtime does not run
    /// on this machine.
    pub fn load(path: &Path, variables: BTreeMap<String, String>) -> Result<Self> {
        let file = path.display();
        ensure!(path.exists(), "{file} does not exist: run `make build`");
        let engine = engine().context("Wasmtime cannot start")?;
        let component = prepare(&engine, path);
        let component = component
            .with_context(|| format!("{file}: not a component that this host can serve"))?;
        Ok(Self {
            component,
            variables: Arc::new(variables),
        })
    }

    /// Serves `request` with a new instance, which may run on after the response has started.
    ///
    /// # Errors
    /// If the guest fails, or returns, before it has started a response.
    pub async fn respond(&self, request: Request<Incoming>) -> Result<Response<HyperOutgoingBody>> {
        let state = State {
            table: ResourceTable::new(),
            wasi: WasiCtx::builder().inherit_stdout().inherit_stderr().build(),
            http: WasiHttpCtx::new(),
            no_outgoing: NoOutgoing,
            variables: self.variables.clone(),
        };
        let mut store = Store::new(self.component.engine(), state);
        store.set_epoch_deadline(NO_DEADLINE);
        let instance = self.component.instantiate_async(&mut store).await?;

        let (sender, response) = oneshot::channel();
        let mut http = store.data_mut().http();
        let request = http.new_incoming_request(Scheme::Http, request)?;
        let outparam = http.new_response_outparam(sender)?;
        let work = tokio::spawn(async move {
            instance
                .wasi_http_incoming_handler()
                .call_handle(&mut store, request, outparam)
                .await
        });

        match response.await {
            Ok(response) => {
                tokio::spawn(async move {
                    if let Ok(Err(error)) = work.await {
                        report(&error);
                    }
                });
                Ok(response?)
            }
            Err(_) => {
                work.await??;
                bail!("the guest returned without a response")
            }
        }
    }
}

/// Prints on stderr, in one line, why a request failed.
pub fn report(error: &wasmtime::Error) {
    // Above the root cause stands a backtrace of many lines.
    eprintln!("A request failed: {}", one_line(error.root_cause()));
}

/// A message in one line.
pub fn one_line(message: impl ToString) -> String {
    let message = message.to_string();
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// An engine with Spin's settings: they decide what code is generated and what a new instance
/// costs.
fn engine() -> Result<Engine> {
    let mut pool = PoolingAllocationConfig::default();
    pool.total_component_instances(MAX_INSTANCES)
        .total_core_instances(4 * MAX_INSTANCES)
        .total_memories(MAX_INSTANCES)
        .total_tables(2 * MAX_INSTANCES)
        .total_stacks(MAX_INSTANCES)
        .table_elements(100_000)
        .max_component_instance_size(10 << 20)
        .max_core_instance_size(10 << 20)
        .max_core_instances_per_component(200)
        .max_tables_per_component(64)
        .max_memories_per_component(32)
        .max_tables_per_module(2)
        .max_memories_per_module(2)
        .max_memory_size(4 << 30)
        .linear_memory_keep_resident(2 << 20)
        .table_keep_resident(512 << 10);
    let mut config = Config::new();
    config.epoch_interruption(true);
    config.wasm_component_model_async(true);
    // A component is compiled once, and kept in the cache folder of this account.
    config.cache(Cache::from_file(None).ok());
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    let engine = Engine::new(&config).or_else(|error| {
        // The pool reserves terabytes of address space, which not every machine allows.
        eprintln!("Without a pool of instances, a request costs more CPU: {error}");
        config.allocation_strategy(InstanceAllocationStrategy::OnDemand);
        Engine::new(&config)
    })?;

    let ticked = engine.weak();
    thread::spawn(move || {
        while let Some(engine) = ticked.upgrade() {
            engine.increment_epoch();
            drop(engine);
            thread::sleep(EPOCH_TICK);
        }
    });
    Ok(engine)
}

fn prepare(engine: &Engine, path: &Path) -> Result<ProxyPre<State>> {
    let mut wasm = fs::read(path)?;
    if wasm.starts_with(CORE_MODULE) {
        let component = ComponentEncoder::default()
            .module(&wasm)
            .and_then(|encoder| encoder.adapter(ADAPTER_NAME, ADAPTER))
            .and_then(|mut encoder| encoder.encode());
        wasm = component.map_err(|error| format_err!("{error:#}"))?;
    }
    let component = Component::new(engine, wasm)?;
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    variables::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state)?;
    ProxyPre::new(linker.instantiate_pre(&component)?)
}

/// The state of one instance.
struct State {
    table: ResourceTable,
    wasi: WasiCtx,
    http: WasiHttpCtx,
    no_outgoing: NoOutgoing,
    variables: Arc<BTreeMap<String, String>>,
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.table,
        }
    }
}

impl WasiHttpView for State {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView {
            hooks: &mut self.no_outgoing,
            table: &mut self.table,
            ctx: &mut self.http,
        }
    }
}

impl variables::Host for State {
    fn get(&mut self, name: String) -> Result<String, variables::Error> {
        let value = self.variables.get(&name).cloned();
        value.ok_or(variables::Error::Undefined(name))
    }
}

/// Rejects every request that a guest wants to send.
struct NoOutgoing;

type Exchange<T> = Box<dyn Future<Output = Result<T, wasmtime_wasi_http::Error>> + Send>;

impl WasiHttpHooks for NoOutgoing {
    fn send_request(
        &mut self,
        _: Request<WasiBody>,
        _: Option<RequestOptions>,
        _: Exchange<()>,
    ) -> Exchange<(Response<WasiBody>, Exchange<()>)> {
        Box::new(async { Err(wasmtime_wasi_http::Error::HttpRequestDenied) })
    }
}
