use super::*;
use crate::{
    clock::Clock,
    engine::tests::world::{World, account, sequencer_key},
    mempool::{Mempool, MempoolConfig, PoolLimits},
    mempool_link::HeadState,
    sequencer::SequencerConfig,
};
use alloy_primitives::{Address, U256};
use parking_lot::Mutex;
use serde_json::{Value, json};

struct Server {
    world: World,
    sequencer: Arc<Sequencer>,
    handle: ServerHandle,
    token: String,
    filters: Arc<Mutex<Vec<String>>>,
    _dir: tempfile::TempDir,
}

impl Server {
    async fn start() -> Self {
        let mut world = World::new();
        let deposit = world.deposit(account().address(), 100_000_000);
        world.mine(vec![deposit]);
        world.build(vec![]).unwrap();
        let engine = world.engine.clone();
        let mempool = Arc::new(Mempool::new(
            MempoolConfig::new(engine.evm()),
            Arc::new(HeadState::new(engine.clone())),
            None,
        ));
        let policy = SequencerConfig {
            origin_depth: 0,
            interval: std::time::Duration::ZERO,
            pool: PoolLimits::default(),
        };
        let sequencer = Arc::new(Sequencer::new(
            world.params,
            policy,
            sequencer_key(),
            engine.clone(),
            mempool,
            Clock::system(),
        ));
        let filters = Arc::new(Mutex::new(Vec::new()));
        let set = filters.clone();
        let admin = Admin {
            params: world.params,
            engine,
            roles: Roles { sequencer: true, proposer: false, challenger: false },
            sequencer: Some(sequencer.clone()),
            batcher: None,
            log: LogFilter::new(move |filter| {
                set.lock().push(filter.to_owned());
                if filter == "=" { Err("no filter".into()) } else { Ok(()) }
            }),
        };
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let token = Token::open(&path).unwrap();
        let handle = serve(([127, 0, 0, 1], 0).into(), token, admin).await.unwrap();
        let token = std::fs::read_to_string(path).unwrap().trim().to_owned();
        Self { world, sequencer, handle, token, filters, _dir: dir }
    }

    async fn post(
        &self,
        authorization: Option<&str>,
        method: &str,
        params: Value,
    ) -> reqwest::Response {
        let request = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let mut post = http
            .post(format!("http://{}", self.handle.address()))
            .header("content-type", "application/json")
            .body(request.to_string());
        if let Some(value) = authorization {
            post = post.header("authorization", value);
        }
        post.send().await.unwrap()
    }

    /// The result, or the error's message.
    async fn ask(&self, method: &str, params: Value) -> Result<Value, String> {
        let shown = format!("Bearer {}", self.token);
        let answer = self.post(Some(&shown), method, params).await;
        assert_eq!(answer.status(), 200);
        let answer: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
        match answer.get("error") {
            Some(error) => Err(error["message"].as_str().unwrap().to_owned()),
            None => Ok(answer["result"].clone()),
        }
    }
}

#[tokio::test]
async fn who_does_not_show_the_token_gets_401_and_nothing_else() {
    let server = Server::start().await;
    let token = server.token.clone();
    let mut other = token.clone();
    other.replace_range(63.., if token.ends_with('0') { "1" } else { "0" });
    for shown in [
        None,
        Some(String::new()),
        Some("Bearer".into()),
        Some("Bearer ".into()),
        Some(token.clone()),
        Some(format!("Basic {token}")),
        Some(format!("Bearer {other}")),
        Some(format!("Bearer {}", &token[..63])),
        Some(format!("Bearer {token}0")),
    ] {
        let answer = server.post(shown.as_deref(), "admin_stopSequencer", json!([])).await;
        assert_eq!(answer.status(), 401, "{shown:?}");
        assert_eq!(answer.headers()["www-authenticate"], "Bearer");
        assert!(!answer.text().await.unwrap().contains("jsonrpc"));
    }
    assert!(server.sequencer.is_active(), "nothing was done");
    assert_eq!(server.ask("admin_sequencerActive", json!([])).await, Ok(json!(true)));
    let info = server.ask("admin_nodeInfo", json!([])).await.unwrap();
    assert_eq!((&info["network"], &info["roles"]["sequencer"]), (&json!("dev"), &json!(true)));
}

#[tokio::test]
async fn a_stopped_sequencer_makes_no_block_until_it_is_started_on_the_same_head() {
    let mut server = Server::start().await;
    let head = server.world.engine.heads().latest.hash;
    assert_eq!(server.ask("admin_stopSequencer", json!([])).await, Ok(json!(head)));
    let again = server.ask("admin_stopSequencer", json!([])).await;
    assert_eq!(again, Err("sequencer not running".into()));
    assert_eq!(server.ask("admin_sequencerActive", json!([])).await, Ok(json!(false)));

    let tx = server.world.plain_transfer(Address::repeat_byte(0xb0), U256::ONE);
    server.sequencer.mempool().add(tx).unwrap();
    server.sequencer.step().await.unwrap();
    assert_eq!(server.world.engine.heads().latest.hash, head);

    let wrong = server.ask("admin_startSequencer", json!([B256::ZERO])).await.unwrap_err();
    assert!(wrong.starts_with("block hash does not match: head"), "{wrong}");
    assert_eq!(server.ask("admin_startSequencer", json!([head])).await, Ok(Value::Null));
    let twice = server.ask("admin_startSequencer", json!([head])).await;
    assert_eq!(twice, Err("sequencer already running".into()));
    server.sequencer.step().await.unwrap();
    assert_eq!(server.world.balance(Address::repeat_byte(0xb0)), U256::ONE);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_sequencer_goes_on_when_it_is_started_again() {
    let mut server = Server::start().await;
    let stop = tokio_util::sync::CancellationToken::new();
    let running = tokio::spawn(server.sequencer.clone().run(stop.clone()));
    let head = server.ask("admin_stopSequencer", json!([])).await.unwrap();
    let tx = server.world.plain_transfer(Address::repeat_byte(0xb0), U256::ONE);
    server.sequencer.mempool().add(tx).unwrap();
    let mut heads = server.world.engine.watch_heads();
    let before = server.world.engine.heads().latest.number;
    assert_eq!(server.ask("admin_startSequencer", json!([head])).await, Ok(Value::Null));
    heads.wait_for(|heads| heads.latest.number > before).await.unwrap();
    stop.cancel();
    running.await.unwrap().unwrap();
}

#[tokio::test]
async fn the_mempool_is_cleared_and_the_log_filter_set() {
    let mut server = Server::start().await;
    let tx = server.world.plain_transfer(Address::repeat_byte(0xb0), U256::ONE);
    server.sequencer.mempool().add(tx).unwrap();
    assert_eq!(server.ask("admin_clearTxpool", json!([])).await, Ok(json!(1)));
    assert_eq!(server.sequencer.mempool().best(0).count(), 0);
    assert_eq!(server.ask("admin_setLogFilter", json!(["kedge=debug"])).await, Ok(Value::Null));
    assert_eq!(server.ask("admin_setLogFilter", json!(["="])).await, Err("no filter".into()));
    assert_eq!(*server.filters.lock(), ["kedge=debug", "="]);
    let nobody = server.ask("admin_stopBatcher", json!([])).await;
    assert_eq!(nobody, Err("this node is not the sequencer".into()));
}
