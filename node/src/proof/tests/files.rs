//! Which folders of blocks make a chain.

use super::*;
fn params() -> &'static Params {
    Network::Dev.params()
}

fn open(dir: &TempDir) -> Result<Folder, BlocksError> {
    Folder::open(dir.path(), params())
}

/// The chain that a folder holds.
fn chain(dir: &TempDir) -> Result<Vec<Block>, BlocksError> {
    let mut chain = BitcoinChain::new(params(), Box::new(open(dir)?));
    let mut blocks = Vec::new();
    while let Some(l1) = chain.advance()? {
        blocks.push((*l1.block).clone());
    }
    Ok(blocks)
}

fn genesis() -> Block {
    bitcoin::constants::genesis_block(bitcoin::Network::Regtest)
}

#[test]
fn files_are_ordered_by_their_headers_whatever_their_names_and_form() {
    let case = Case::new();
    let dir = case.folder();
    // The start itself, a second copy, and what is passed over.
    write(dir.path(), &genesis());
    std::fs::write(dir.path().join("copy"), serialize(&case.world.chain[3])).unwrap();
    std::fs::write(dir.path().join(".DS_Store"), "?").unwrap();
    std::fs::create_dir(dir.path().join("more")).unwrap();
    let found = chain(&dir).unwrap();
    assert_eq!(found, case.world.chain);
}

#[test]
fn of_branches_the_one_with_the_most_work_counts() {
    let mut case = Case::new();
    let long = case.world.chain.clone();
    // Two blocks beside the last two, and one more.
    case.world.chain.truncate(long.len() - 2);
    for _ in 0..2 {
        case.world.extend();
    }
    let other = case.world.chain.clone();
    let dir = case.folder();
    for block in &long {
        write(dir.path(), block);
    }
    let tie = chain(&dir).unwrap();
    assert!(tie == long || tie == other);
    case.world.extend();
    write(dir.path(), case.world.chain.last().unwrap());
    assert_eq!(chain(&dir).unwrap(), case.world.chain);
}

#[test]
fn a_missing_block_is_named() {
    let case = Case::new();
    let dir = case.folder();
    let missing = case.world.chain[2].block_hash();
    std::fs::remove_file(dir.path().join(&missing.to_string()[50..])).unwrap();
    let error = open(&dir).unwrap_err();
    assert!(matches!(error, BlocksError::Missing { missing: found, .. } if found == missing));
    // Without the first nothing follows the start.
    let dir = TempDir::new().unwrap();
    write(dir.path(), &case.world.chain[1]);
    let error = open(&dir).unwrap_err();
    assert!(matches!(error, BlocksError::NoStart { files: 1, .. }), "{error}");
    let error = open(&TempDir::new().unwrap()).unwrap_err();
    assert!(matches!(error, BlocksError::NoStart { files: 0, .. }), "{error}");
    let nowhere = Folder::open(&dir.path().join("nowhere"), params()).unwrap_err();
    assert!(matches!(nowhere, BlocksError::Io { .. }), "{nowhere}");
}

#[test]
fn what_is_no_block_is_refused_by_name() {
    let mut case = Case::new();
    let txs = [0, 1].map(|_| case.world.pay(vec![]));
    let block = case.world.block(txs.into());
    case.world.chain.push(block.clone());
    let bytes = serialize(&block);
    let mut cut = bytes.clone();
    cut.pop();
    let more = [&bytes[..], &[0]].concat();
    let huge = [&bytes[..], &vec![0; 9_000_000]].concat();
    // Another witness, which the header commits to through the coinbase alone.
    let mut witness = block.clone();
    witness.txdata[1].input[0].witness.push([1]);
    let mut stripped = block.clone();
    stripped.txdata.iter_mut().flat_map(|tx| &mut tx.input).for_each(|input| input.witness.clear());
    let mut body = block.clone();
    body.txdata.pop();
    // The last of three leaves twice makes the same merkle root.
    let mut twice = block.clone();
    twice.txdata.push(block.txdata[2].clone());
    assert!(twice.check_merkle_root());
    // Nothing worked for it.
    let mut lazy = block.clone();
    while lazy.header.validate_pow(lazy.header.target()).is_ok() {
        lazy.header.nonce += 1;
    }
    let files: [(&str, Vec<u8>); 11] = [
        ("empty", vec![]),
        ("text", b"block 7".to_vec()),
        ("odd", hex::encode(&bytes)[1..].into()),
        ("cut", cut),
        ("more", more),
        ("huge", huge),
        ("witness", serialize(&witness)),
        ("stripped", serialize(&stripped)),
        ("body", serialize(&body)),
        ("twice", serialize(&twice)),
        ("lazy", serialize(&lazy)),
    ];
    for (name, bytes) in files {
        let dir = case.folder();
        let last = block.block_hash().to_string();
        std::fs::remove_file(dir.path().join(&last[50..])).unwrap();
        std::fs::write(dir.path().join(name), bytes).unwrap();
        match chain(&dir) {
            Err(BlocksError::NotABlock { path, .. }) => assert!(path.ends_with(name)),
            other => panic!("{name}: {:?}", other.map(|chain| chain.len())),
        }
    }
}

#[test]
fn a_proof_file_is_written_once_and_whole() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("proof");
    file::write_new(&path, b"one").unwrap();
    let error = file::write_new(&path, b"two").unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::AlreadyExists);
    assert_eq!(file::read(&path).unwrap(), b"one");
    // Nothing else is left behind.
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    assert!(file::write_new(&dir.path().join("no/such/folder"), b"").is_err());
    assert!(file::read(dir.path()).is_err());
    // What has no end is read to where it is too large.
    let endless = file::read(Path::new("/dev/zero")).unwrap();
    let params = params();
    let most = params.max_chunk_bytes as usize * usize::from(params.max_chunks);
    assert_eq!(endless.len(), most + 1);
}
