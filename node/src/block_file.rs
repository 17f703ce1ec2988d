//! L2 blocks as a file: their RLP one after the other, as go-ethereum's `export` writes them.
//!
//! Which blocks there are is for Bitcoin to say. So importing never makes a block `safe`: of a block that this
//! node has, the file's has to be the same; one that follows the latest block is executed, and if it comes to
//! the hash that the file says, it is added as the sequencer would, to be confirmed by Bitcoin or unwound.

use crate::engine::{Appender, Engine, recover_senders};
use alloy_consensus::{
    Block, BlockBody, Header, Transaction as _, proofs::calculate_transaction_root,
};
use alloy_eips::Encodable2718;
use alloy_primitives::{Address, Bytes};
use alloy_rlp::{Decodable as _, Encodable as _};
use anyhow::{Context, bail, ensure};
use kedge_bridge::derive::L2Cursor;
use kedge_genesis::{L2Number, predeploys};
use kedge_store::{L2Rows, Reader};
use kedge_vm::{OpTxEnvelope, Payload, PayloadTx, Senders};
use rayon::iter::{
    IndexedParallelIterator as _, IntoParallelRefIterator as _, ParallelIterator as _,
};
use std::collections::BTreeSet;
use std::io::{BufRead, Read as _, Write};
use std::{sync::mpsc, thread};

/// A block of the file.
pub type FileBlock = Block<OpTxEnvelope, Header>;

/// Largest block that is read. One with the most gas is far smaller.
const MAX_BLOCK_BYTES: usize = 64 << 20;

/// Fewer accounts than this are not worth another thread.
const READ_AT_ONCE: usize = 32;

/// Blocks of a file that are read, and whose senders are recovered, before they are due.
const AHEAD: usize = 2;

/// What became of a block of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Imported {
    /// It is in the chain already, the same.
    Known,
    /// It is the latest block now, not yet confirmed by Bitcoin.
    Added,
}

/// Writes the blocks from `first` to `last`; `progress` is told after each.
///
/// # Errors
/// When a block is not there, and when store or writer fail.
pub fn write_blocks(
    reader: &Reader<'_>,
    first: L2Number,
    last: L2Number,
    out: &mut impl Write,
    mut progress: impl FnMut(),
) -> anyhow::Result<u64> {
    let mut bytes = Vec::new();
    for number in (first.0..=last.0).map(L2Number) {
        let header =
            reader.header(number)?.with_context(|| format!("there is no block {number}"))?;
        let transactions = reader.transactions(number)?.unwrap_or_default();
        let withdrawals = Some(Default::default());
        let body = BlockBody { transactions, ommers: Vec::new(), withdrawals };
        bytes.clear();
        FileBlock::new(header, body).encode(&mut bytes);
        out.write_all(&bytes)?;
        progress();
    }
    out.flush()?;
    Ok(last.0 + 1 - first.0)
}

/// The next block of a file and the bytes that it takes; none at the end.
///
/// # Errors
/// When the file cannot be read or holds something else.
pub fn read_block(file: &mut impl BufRead) -> anyhow::Result<Option<(FileBlock, usize)>> {
    if file.fill_buf()?.is_empty() {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    let extend = |bytes: &mut Vec<u8>, count: usize, file: &mut dyn BufRead| {
        let read = file.take(count as u64).read_to_end(bytes)?;
        ensure!(read == count, "the file ends within a block");
        anyhow::Ok(())
    };
    // A list begins with one byte that says its length, or the length of its length, which follows.
    extend(&mut bytes, 1, file)?;
    let first = bytes.first().copied().unwrap_or_default();
    ensure!(first >= 0xc0, "not a block: no RLP list");
    extend(&mut bytes, usize::from(first.saturating_sub(0xf7)), file)?;
    let length = match bytes.as_slice() {
        [_, length @ ..] if !length.is_empty() => length.iter().fold(0_usize, |length, byte| {
            length.saturating_mul(256).saturating_add(usize::from(*byte))
        }),
        _ => usize::from(first - 0xc0),
    };
    ensure!(length <= MAX_BLOCK_BYTES, "not a block: it is too large");
    extend(&mut bytes, length, file)?;
    let mut rest = bytes.as_slice();
    let block = FileBlock::decode(&mut rest).context("not a block of this kind of chain")?;
    ensure!(rest.is_empty(), "not a block: it has more than it says");
    Ok(Some((block, bytes.len())))
}

/// Compares the blocks of a file with the chain, or adds them, and tells `progress` what became of each and
/// how many bytes it took. While one is executed, the next ones' senders are recovered and the one before is
/// written, on other threads; what was added is on disk when this returns.
///
/// # Errors
/// As [`read_block`]. When a block does not hold what its header says, is another than the one that the node has,
/// cannot follow the latest block, or comes to another hash than the file says; and when this machine failed. The
/// message says what to do. The blocks before it are there.
pub fn import_blocks(
    engine: &Engine,
    mut file: impl BufRead + Send,
    mut progress: impl FnMut(Imported, usize),
) -> anyhow::Result<()> {
    let known = engine.heads().latest.number;
    let read = move || -> anyhow::Result<_> {
        let Some((block, bytes)) = read_block(&mut file)? else { return Ok(None) };
        check_body(&block)?;
        let mut senders = Senders::default();
        if block.header.number > known.0 {
            senders = recover_senders(&block.body.transactions);
            warm(engine, &block, &senders);
        }
        Ok(Some((block, bytes, senders)))
    };
    thread::scope(|scope| {
        let (give, take) = mpsc::sync_channel(AHEAD);
        scope.spawn(move || {
            let all = std::iter::repeat_with(read).map_while(Result::transpose);
            for item in all {
                let failed = item.is_err();
                // Nobody takes it where importing ended with an error.
                if give.send(item).is_err() || failed {
                    return;
                }
            }
        });
        engine.append_all(|chain| {
            for item in take {
                let (block, bytes, senders) = item?;
                progress(import_block(chain, &block, &senders)?, bytes);
            }
            Ok(())
        })
    })
}

/// Whether a block holds what its header says: a header is compared with the chain by its hash.
fn check_body(block: &FileBlock) -> anyhow::Result<()> {
    let BlockBody { transactions, ommers, withdrawals } = &block.body;
    let has_more = !ommers.is_empty() || withdrawals.as_ref().is_some_and(|list| !list.is_empty());
    ensure!(
        !has_more && calculate_transaction_root(transactions) == block.header.transactions_root,
        "block {} of the file is damaged: it does not hold what its header says; get the file again",
        block.header.number
    );
    Ok(())
}

/// Reads the accounts that a block's transactions name, on all cores, so that they are in the database's caches
/// when it is executed.
fn warm(engine: &Engine, block: &FileBlock, senders: &Senders) {
    let to = block.body.transactions.iter().filter_map(|tx| tx.to());
    let accounts: BTreeSet<Address> = senders.values().copied().chain(to).collect();
    let accounts: Vec<Address> = accounts.into_iter().collect();
    accounts.par_iter().with_min_len(READ_AT_ONCE).for_each(|account| {
        // What cannot be read is read again, and told of, when it is needed.
        let _ = engine.store().account(*account);
    });
}

/// Compares a block with the chain, or adds it. `senders` are those of its transactions that are known.
fn import_block(
    chain: &mut Appender<'_, '_>,
    block: &FileBlock,
    senders: &Senders,
) -> anyhow::Result<Imported> {
    let (number, hash) = (L2Number(block.header.number), block.header.hash_slow());
    let (latest, safe) = (chain.latest(), chain.safe());
    if number <= latest.number {
        let own = chain.hash(number)?.context("the store has no hash of the block")?;
        if own == hash {
            return Ok(Imported::Known);
        }
        if number <= safe.number {
            bail!(
                "block {number} is {hash} in the file, but Bitcoin says that it is {own}: the file is of \
                 another chain, or of blocks that Bitcoin did not confirm"
            );
        }
        let before = number.prev().unwrap_or_default();
        bail!(
            "block {number} is {hash} in the file and {own} here, and Bitcoin has neither yet; to take the \
             file's, run `kedge db rollback --to {before}` first"
        );
    }
    ensure!(
        number == latest.number.next(),
        "the file goes on with block {number}, but the latest block here is {}",
        latest.number
    );
    ensure!(
        block.header.parent_hash == latest.hash,
        "block {number} of the file follows {}, but block {} here is {}",
        block.header.parent_hash,
        latest.number,
        latest.hash
    );
    let (step, user) = content(block);
    let l1_tip = chain.l1_tip();
    let refused = || {
        format!(
            "block {number} cannot follow here: the rules do not allow it after Bitcoin block {}, up to which \
             this node has followed Bitcoin; let `kedge node` catch up with Bitcoin, then import again",
            l1_tip.height
        )
    };
    let plan = |user: Vec<Bytes>| -> anyhow::Result<(Payload, L2Cursor)> {
        chain.plan(step, block.header.timestamp, user)?.with_context(refused)
    };
    let (mut payload, mut cursor) = plan(user.clone())?;
    // What Bitcoin forces into the block comes before the file's and is in the file too, unless it was skipped.
    let forced = users(&payload).len().saturating_sub(user.len());
    if forced > 0 {
        let mut rest = user.as_slice();
        for tx in users(&payload).into_iter().take(forced) {
            if let Some(others) = rest.split_first().filter(|(first, _)| *first == tx) {
                rest = others.1;
            }
        }
        (payload, cursor) = plan(rest.to_vec())?;
    }
    let executed = chain.execute(&payload, senders)?;
    ensure!(
        executed.hash == hash,
        "block {number} comes to {} when it is executed, not to {hash} as the file says",
        executed.hash
    );
    chain.append(&payload, cursor, executed)?;
    Ok(Imported::Added)
}

fn users(payload: &Payload) -> Vec<&Bytes> {
    let users = payload.transactions.iter().filter_map(|tx| match tx {
        PayloadTx::User(bytes) => Some(bytes),
        PayloadTx::System(_) => None,
    });
    users.collect()
}

/// Whether a block begins an epoch, and its transactions without deposits.
fn content(block: &FileBlock) -> (bool, Vec<Bytes>) {
    let attributes = |tx: &OpTxEnvelope| match tx {
        OpTxEnvelope::Deposit(deposit) => {
            deposit.to.to().is_some_and(|to: &Address| *to == predeploys::L1_BLOCK)
        }
        _ => false,
    };
    let transactions = &block.body.transactions;
    let step = transactions.first().is_some_and(attributes);
    let user = transactions
        .iter()
        .filter(|tx| !matches!(tx, OpTxEnvelope::Deposit(_)))
        .map(|tx| tx.encoded_2718().into())
        .collect();
    (step, user)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::tests::world::{World, account, open};
    use alloy_primitives::B256;
    use kedge_genesis::L1Height;
    use tempfile::TempDir;

    const BOB: Address = Address::repeat_byte(0xb0);

    /// Three blocks that Bitcoin has, and two more.
    fn world() -> World {
        let mut world = World::new();
        let deposit = world.deposit(account().address(), 100_000_000);
        world.mine(vec![deposit]);
        world.build(vec![]).unwrap();
        let tx = world.transfer(BOB, 1_000);
        world.build(vec![tx]).unwrap();
        let batch = world.batch().unwrap();
        world.mine(vec![batch]);
        world.build(vec![]).unwrap();
        for _ in 0..2 {
            let (a, b) = (world.transfer(BOB, 5), world.transfer(BOB, 6));
            world.build(vec![a, b]).unwrap();
        }
        world
    }

    fn export(world: &World) -> Vec<u8> {
        let (mut file, mut told) = (Vec::new(), 0);
        let latest = world.engine.heads().latest.number;
        let reader = world.store().reader();
        let count = write_blocks(&reader, L2Number(0), latest, &mut file, || told += 1).unwrap();
        assert_eq!((count, told), (latest.0 + 1, latest.0 + 1));
        file
    }

    fn import(engine: &Engine, block: &FileBlock) -> anyhow::Result<Imported> {
        engine.append_all(|chain| import_block(chain, block, &Senders::default()))
    }

    fn blocks(mut file: &[u8]) -> Vec<FileBlock> {
        let mut blocks = Vec::new();
        while let Some((block, _)) = read_block(&mut file).unwrap() {
            blocks.push(block);
        }
        blocks
    }

    #[test]
    fn a_file_holds_the_blocks_as_they_are() {
        let world = world();
        let file = export(&world);
        let blocks = blocks(&file);
        let reader = world.store().reader();
        for (number, block) in (0..).map(L2Number).zip(&blocks) {
            assert_eq!(Some(block.header.hash_slow()), reader.hash(number).unwrap());
            assert_eq!(
                Some(&block.body.transactions),
                reader.transactions(number).unwrap().as_ref()
            );
        }
        assert_eq!(blocks.len(), 6);
        let sizes = std::iter::successors(Some((&*file, 0)), |(rest, _)| {
            let mut rest = *rest;
            read_block(&mut rest).unwrap().map(|(_, size)| (rest, size))
        });
        assert_eq!(sizes.map(|(_, size)| size).sum::<usize>(), file.len());
    }

    #[test]
    fn a_node_that_follows_bitcoin_takes_the_rest_from_the_file_as_unsafe_blocks() {
        let world = world();
        let dir = TempDir::new().unwrap();
        let other = open(&dir, world.params);
        for (height, block) in (1..).zip(&world.chain) {
            other.connect_l1(L1Height(height), block.clone()).unwrap();
        }
        let imported: Vec<Imported> =
            blocks(&export(&world)).iter().map(|block| import(&other, block).unwrap()).collect();
        let added = imported.iter().filter(|it| **it == Imported::Added).count();
        let safe = world.engine.heads().safe.number;
        assert_eq!(added as u64, world.engine.heads().latest.number.0 - safe.0);
        assert_eq!(other.heads().latest, world.engine.heads().latest);
        assert_eq!(other.heads().safe.number, safe);
    }

    #[test]
    fn a_node_that_does_not_follow_bitcoin_says_what_to_do() {
        let world = world();
        let dir = TempDir::new().unwrap();
        let other = open(&dir, world.params);
        let blocks = blocks(&export(&world));
        assert_eq!(import(&other, &blocks[0]).unwrap(), Imported::Known);
        let error = import(&other, &blocks[1]).unwrap_err().to_string();
        assert!(error.contains("let `kedge node` catch up"), "{error}");
        let error = import(&other, &blocks[2]).unwrap_err().to_string();
        assert!(error.contains("the latest block here is 0"), "{error}");
    }

    #[test]
    fn another_block_than_bitcoins_is_refused() {
        let world = world();
        let mut blocks = blocks(&export(&world));
        for (number, expected) in [(2, "Bitcoin says"), (5, "kedge db rollback --to 4")] {
            blocks[number].header.extra_data = Bytes::from_static(&[1]);
            let error = import(&world.engine, &blocks[number]).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_block_that_does_not_hold_what_its_header_says_is_refused() {
        let world = world();
        let blocks = blocks(&export(&world));
        let import = |block: &FileBlock| {
            let mut file = Vec::new();
            block.encode(&mut file);
            import_blocks(&world.engine, file.as_slice(), |_, _| {})
        };
        import(&blocks[2]).unwrap();
        let mut others = vec![blocks[2].clone(); 3];
        others[0].body.transactions.pop();
        others[1].body.ommers.push(Header::default());
        others[2].body.withdrawals = Some(vec![Default::default()].into());
        for other in &others {
            let error = import(other).unwrap_err().to_string();
            assert!(error.contains("block 2 of the file is damaged"), "{error}");
        }
    }

    #[test]
    fn a_block_with_a_wrong_root_is_not_added() {
        let world = world();
        let mut blocks = blocks(&export(&world));
        world.engine.unwind_unsafe_to(L2Number(4)).unwrap();
        let latest = world.engine.heads().latest;
        blocks[5].header.state_root = B256::repeat_byte(1);
        let error = import(&world.engine, &blocks[5]).unwrap_err().to_string();
        assert!(error.contains("when it is executed"), "{error}");
        assert_eq!(world.engine.heads().latest, latest);
    }

    #[test]
    fn what_is_not_a_file_of_blocks_is_refused() {
        let world = world();
        let file = export(&world);
        let error = |mut bytes: &[u8]| read_block(&mut bytes).unwrap_err().to_string();
        assert!(error(&file[..40]).contains("ends within a block"));
        assert!(error(b"hello").contains("not a block"));
        assert!(error(&[0xfb, 0xff, 0xff, 0xff, 0xff]).contains("too large"));
        assert!(error(&[0xc1, 0x80]).contains("not a block"));
        assert!(read_block(&mut &b""[..]).unwrap().is_none());
    }
}
