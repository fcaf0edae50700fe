//! Prompt text to tokens to cache blocks.
//!
//! The rule: a token is 4 bytes of the prompt text, the last one may be shorter; a block is `block_tokens` full
//! tokens; a block's hash covers everything before it. So a prompt that continues another one shares exactly the
//! blocks that are full in the shorter one.

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Bytes of prompt text per token.
pub const BYTES_PER_TOKEN: usize = 4;

/// Tokens of a text of this many bytes.
pub fn token_count(bytes: usize) -> usize {
    bytes.div_ceil(BYTES_PER_TOKEN)
}

/// A text that grows at its end, as a chain of block hashes.
#[derive(Clone, Debug)]
pub(crate) struct BlockChain {
    block_bytes: usize,
    bytes: usize,
    hash: u64,
    tail: Vec<u8>,
    blocks: Vec<u64>,
}

impl BlockChain {
    pub(crate) fn new(block_tokens: usize) -> Self {
        let block_bytes = block_tokens.max(1) * BYTES_PER_TOKEN;
        Self { block_bytes, bytes: 0, hash: 0, tail: Vec::new(), blocks: Vec::new() }
    }

    pub(crate) fn push(&mut self, mut text: &[u8]) {
        self.bytes += text.len();
        if !self.tail.is_empty() {
            let missing = self.block_bytes - self.tail.len();
            let (now, later) = text.split_at(missing.min(text.len()));
            self.tail.extend_from_slice(now);
            if self.tail.len() < self.block_bytes {
                return;
            }
            let block = std::mem::take(&mut self.tail);
            self.close_block(&block);
            text = later;
        }
        let mut blocks = text.chunks_exact(self.block_bytes);
        for block in &mut blocks {
            self.close_block(block);
        }
        self.tail.extend_from_slice(blocks.remainder());
    }

    /// Tokens of the whole text.
    pub(crate) fn tokens(&self) -> usize {
        token_count(self.bytes)
    }

    /// Hashes of the full blocks, first block first.
    pub(crate) fn blocks(&self) -> &[u64] {
        &self.blocks
    }

    /// A number that depends on the whole text.
    pub(crate) fn fingerprint(&self) -> u64 {
        xxh3_64_with_seed(&self.tail, self.hash)
    }

    fn close_block(&mut self, block: &[u8]) {
        self.hash = xxh3_64_with_seed(block, self.hash);
        self.blocks.push(self.hash);
    }
}

/// The text of generated token number `index`: one token long, and the same for the same prompt.
pub(crate) fn generated_token(prompt: u64, index: usize) -> [u8; BYTES_PER_TOKEN] {
    let mut word = [b' '; BYTES_PER_TOKEN];
    let hash = xxh3_64_with_seed(&(index as u64).to_le_bytes(), prompt);
    for (letter, byte) in word.iter_mut().zip(hash.to_le_bytes()).take(BYTES_PER_TOKEN - 1) {
        *letter = b'a' + byte % 26;
    }
    word
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_does_not_depend_on_how_the_text_is_cut() {
        let text: Vec<u8> = (0..1000u32).map(|i| (i % 251) as u8).collect();
        let mut whole = BlockChain::new(4);
        whole.push(&text);
        for step in [1, 3, 16, 17, 333] {
            let mut pieces = BlockChain::new(4);
            text.chunks(step).for_each(|piece| pieces.push(piece));
            assert_eq!(pieces.blocks(), whole.blocks(), "step {step}");
            assert_eq!(pieces.fingerprint(), whole.fingerprint());
        }
        assert_eq!(whole.blocks().len(), 1000 / 16);
        assert_eq!(whole.tokens(), 250);
    }

    #[test]
    fn a_block_hash_covers_everything_before_it() {
        let chain = |text: &str| {
            let mut chain = BlockChain::new(1);
            chain.push(text.as_bytes());
            chain.blocks().to_vec()
        };
        let (a, b, c) = (chain("aaaabbbbcccc"), chain("aaaabbbbdddd"), chain("xxxxbbbbcccc"));
        assert_eq!(a[..2], b[..2]);
        assert_ne!(a[2], b[2]);
        assert!(a.iter().zip(&c).all(|(a, c)| a != c));
    }

    #[test]
    fn generated_tokens_are_one_token_of_plain_text() {
        let word = generated_token(7, 0);
        assert_eq!(word, generated_token(7, 0));
        assert_ne!(word, generated_token(7, 1));
        assert!(word[..3].iter().all(u8::is_ascii_lowercase) && word[3] == b' ');
    }
}
