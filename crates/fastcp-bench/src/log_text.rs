//! Lines of a web service's log, as many bytes as are wanted.
//!
//! Made to compress as such logs do: zstd at level 3 takes them to between a fifth and an eighth.
//! Words and paths come from short lists and often follow on each other; times advance; ids, sizes
//! and latencies are what does not compress.

use std::io::{self, Write};

use crate::random::Random;

/// 2025-03-03, a Monday.
const FIRST_MS: u64 = 1_740_960_000_000;
const DAY_MS: u64 = 86_400_000;

const HOSTS: u64 = 24;
const SERVICES: [&str; 5] = ["gateway", "orders", "inventory", "accounts", "search"];
const ROUTES: [(&str, &str, &str); 8] = [
    ("GET", "/api/v2/orders/", "OrderController.show"),
    ("GET", "/api/v2/products/", "ProductController.show"),
    ("POST", "/api/v2/orders/", "OrderController.create"),
    ("GET", "/api/v2/customers/", "CustomerController.show"),
    ("PUT", "/api/v2/carts/", "CartController.update"),
    ("GET", "/static/assets/", "AssetController.serve"),
    ("DELETE", "/api/v2/sessions/", "SessionController.destroy"),
    ("GET", "/api/v2/search/suggestions/", "SearchController.suggest"),
];
const WARNINGS: [&str; 4] = [
    "slow query on replica, retrying on primary",
    "connection pool is nearly exhausted",
    "upstream answered after the soft deadline",
    "cache entry is stale, serving it while it is revalidated",
];
const ERRORS: [&str; 3] = [
    "upstream connect error or disconnect/reset before headers, reset reason: connection termination",
    "deadline exceeded while waiting for a connection from the pool",
    "optimistic lock failed: row was updated by another transaction",
];

/// Writes log lines of `index`'s file until there are exactly `bytes`; the last line is cut.
pub(crate) fn write_log(out: &mut impl Write, seed: u64, index: u64, bytes: u64) -> io::Result<()> {
    let mut random = Random::of_part(seed, index);
    let mut now_ms = FIRST_MS + index * DAY_MS;
    let mut left = bytes;
    let mut line = Vec::with_capacity(512);
    while left > 0 {
        line.clear();
        now_ms += random.below(9);
        write_line(&mut line, &mut random, now_ms)?;
        line.truncate(usize::try_from(left).unwrap_or(usize::MAX));
        out.write_all(&line)?;
        left -= line.len() as u64;
    }
    Ok(())
}

fn write_line(line: &mut Vec<u8>, random: &mut Random, now_ms: u64) -> io::Result<()> {
    let (second, ms) = (now_ms / 1000 % 86_400, now_ms % 1000);
    let day = 3 + (now_ms - FIRST_MS) / DAY_MS;
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let host = random.below(HOSTS);
    let service = SERVICES[pick(random, SERVICES.len())];
    write!(line, "2025-03-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z ")?;
    match random.below(100) {
        0 => write_trouble(line, random, "ERROR", &ERRORS, service, host),
        1..=4 => write_trouble(line, random, "WARN ", &WARNINGS, service, host),
        _ => write_request(line, random, service, host),
    }
}

/// An index, the low ones more often.
fn pick(random: &mut Random, count: usize) -> usize {
    let skewed = random.unit() * random.unit();
    (skewed * count as f64) as usize
}

fn write_request(line: &mut Vec<u8>, random: &mut Random, service: &str, host: u64) -> io::Result<()> {
    let (method, path, handler) = ROUTES[pick(random, ROUTES.len())];
    let status = if random.below(50) == 0 { 404 } else { 200 };
    let (id, bytes, latency) = (pick(random, 100_000), pick(random, 30_000), pick(random, 4000));
    let (client, trace) = (random.below(4096), random.next());
    writeln!(
        line,
        "INFO  web-{host:02}.eu-central-1.prod.example.net {service}[{pid}] c.e.platform.web.AccessLogFilter - \
         method={method} path=\"{path}{id}\" handler={handler} status={status} bytes={bytes} \
         duration_ms={whole}.{tenth} client=10.24.{third}.{fourth} trace_id={trace:016x} \
         user_agent=\"okhttp/4.12.0\"",
        pid = 2000 + host,
        whole = latency / 10,
        tenth = latency % 10,
        third = client / 256,
        fourth = client % 256,
    )
}

fn write_trouble(
    line: &mut Vec<u8>,
    random: &mut Random,
    level: &str,
    messages: &[&str],
    service: &str,
    host: u64,
) -> io::Result<()> {
    let message = messages[pick(random, messages.len())];
    let (thread, attempt, trace) = (random.below(32), random.below(4), random.next());
    writeln!(
        line,
        "{level} web-{host:02}.eu-central-1.prod.example.net {service}[{pid}] c.e.platform.{service}.Worker - \
         [worker-{thread:02}] {message} attempt={attempt} trace_id={trace:016x}",
        pid = 2000 + host,
    )
}

#[cfg(test)]
mod tests {
    use super::write_log;
    use crate::workload::SEED;

    fn log(index: u64, bytes: u64) -> Vec<u8> {
        let mut log = Vec::new();
        write_log(&mut log, SEED, index, bytes).expect("a vector takes all");
        log
    }

    #[test]
    fn text_is_pinned() {
        let log = log(0, 1_000_000);
        assert_eq!(log.len(), 1_000_000);
        assert!(log.starts_with(b"2025-03-03T00:00:00.0"));
        assert_eq!(crc32fast::hash(&log), 2_661_800_177);
    }

    #[test]
    fn compresses_as_logs_do() {
        let log = log(7, 8 << 20);
        let compressed = zstd::bulk::compress(&log, 3).expect("compress");
        let ratio = log.len() as f64 / compressed.len() as f64;
        assert!((5.0..8.0).contains(&ratio), "{ratio}");
    }
}
