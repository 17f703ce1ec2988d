//! The load: one thread, several connections, one request under way on each of them.
//!
//! Requests are encoded before and answers are only delimited and compared, so that this thread takes less time for
//! a request than any server does.

use anyhow::{Context, Result, ensure};
use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};

/// Connections at a time.
pub(crate) const CONNECTIONS: usize = 8;

/// How a server did.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// Answers per second.
    pub(crate) rate: f64,
    /// Half of the answers took no longer.
    pub(crate) p50: Duration,
    /// 99 % of the answers took no longer.
    pub(crate) p99: Duration,
}

/// An HTTP request with a JSON-RPC body.
pub(crate) fn encode(method: &str, params: &serde_json::Value) -> Vec<u8> {
    let body = serde_json::json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
    let body = body.to_string();
    let length = body.len();
    format!(
        "POST / HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    pub(crate) async fn open(to: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(to).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::with_capacity(64 * 1024) })
    }

    /// The body of the answer, which has to be a result.
    pub(crate) async fn ask(&mut self, request: &[u8]) -> Result<&[u8]> {
        self.stream.write_all(request).await?;
        self.buffer.clear();
        let body = loop {
            let read = self.stream.read_buf(&mut self.buffer).await?;
            ensure!(read > 0, "the server closed the connection");
            if let Some(head) = self.buffer.windows(4).position(|end| end == b"\r\n\r\n") {
                break head + 4;
            }
        };
        let head = std::str::from_utf8(&self.buffer[..body])?;
        ensure!(head.starts_with("HTTP/1.1 200"), "{head}");
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("content-length").then(|| value.parse::<usize>().ok())?
        });
        let end = body + length.with_context(|| format!("no length: {head}"))?;
        while self.buffer.len() < end {
            let read = self.stream.read_buf(&mut self.buffer).await?;
            ensure!(read > 0, "the server closed the connection");
        }
        Ok(&self.buffer[body..end])
    }
}

fn check(answer: &[u8]) -> Result<()> {
    let start = &answer[..answer.len().min(200)];
    let is_result = start.windows(9).any(|part| part == b"\"result\":");
    ensure!(is_result, "no result: {}", String::from_utf8_lossy(start));
    Ok(())
}

/// Runs `work` on this thread alone.
fn on_this_thread<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, work)
}

/// Asks the same again and again for that long. Every answer has to be the same.
pub(crate) fn repeat(to: SocketAddr, request: &[u8], time: Duration) -> Result<Load> {
    let one = |end: Instant, request: Vec<u8>| async move {
        let mut connection = Connection::open(to).await?;
        let first = connection.ask(&request).await?.to_vec();
        check(&first)?;
        let mut times = Vec::with_capacity(1 << 18);
        let mut asked = Instant::now();
        while asked < end {
            let answer = connection.ask(&request).await?;
            ensure!(answer == first, "another answer: {}", String::from_utf8_lossy(answer));
            let answered = Instant::now();
            times.push(answered - asked);
            asked = answered;
        }
        Ok::<_, anyhow::Error>(times)
    };
    let (times, took) = on_this_thread(async {
        let begin = Instant::now();
        let mut all = JoinSet::new();
        for _ in 0..CONNECTIONS {
            all.spawn_local(one(begin + time, request.to_vec()));
        }
        let mut times = Vec::new();
        while let Some(done) = all.join_next().await {
            times.extend(done??);
        }
        Ok((times, begin.elapsed()))
    })?;
    Ok(summary(times, took))
}

/// Sends each list over a connection of its own, in its order.
pub(crate) fn send(to: SocketAddr, lists: Vec<Vec<Vec<u8>>>) -> Result<Load> {
    let one = |list: Vec<Vec<u8>>| async move {
        let mut connection = Connection::open(to).await?;
        let mut times = Vec::with_capacity(list.len());
        for request in list {
            let asked = Instant::now();
            check(connection.ask(&request).await?)?;
            times.push(asked.elapsed());
        }
        Ok::<_, anyhow::Error>(times)
    };
    let (times, took) = on_this_thread(async {
        let begin = Instant::now();
        let mut all = JoinSet::new();
        for list in lists {
            all.spawn_local(one(list));
        }
        let mut times = Vec::new();
        while let Some(done) = all.join_next().await {
            times.extend(done??);
        }
        Ok((times, begin.elapsed()))
    })?;
    Ok(summary(times, took))
}

/// How long one answer takes on a connection that is open already.
pub(crate) fn single(to: SocketAddr, request: &[u8]) -> Result<(Duration, usize)> {
    on_this_thread(async {
        let mut connection = Connection::open(to).await?;
        connection.ask(&encode("eth_chainId", &serde_json::json!([]))).await?;
        let asked = Instant::now();
        let answer = connection.ask(request).await?;
        let took = asked.elapsed();
        check(answer)?;
        Ok((took, answer.len()))
    })
}

fn summary(mut times: Vec<Duration>, took: Duration) -> Load {
    times.sort_unstable();
    let at = |percent: usize| {
        times.get(times.len() * percent / 100).or(times.last()).copied().unwrap_or_default()
    };
    Load { rate: times.len() as f64 / took.as_secs_f64(), p50: at(50), p99: at(99) }
}
