//! The Merkle tree over a chain (RFC 6962 §2.1), kept as its right edge only: O(log n) memory, amortised O(1) per record.

use sha2::{Digest, Sha256};

use super::chain::{ChainId, Hash};

/// What a leaf commits to: small and of fixed size, so that a proof never needs the record's neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Commitment {
    /// The chain.
    pub chain: ChainId,
    /// The record's place in it.
    pub seq: u64,
    /// The record's hash.
    pub record_hash: Hash,
    /// Hash of the sealed payload's ciphertext; [`Hash::ZERO`] where there is none.
    pub payload_hash: Hash,
}

impl Commitment {
    /// The leaf's 88 bytes: chain id, u64be seq, record hash, payload hash.
    #[must_use]
    pub fn bytes(&self) -> [u8; 88] {
        let mut bytes = [0; 88];
        bytes[..16].copy_from_slice(&self.chain.0);
        bytes[16..24].copy_from_slice(&self.seq.to_be_bytes());
        bytes[24..56].copy_from_slice(&self.record_hash.0);
        bytes[56..].copy_from_slice(&self.payload_hash.0);
        bytes
    }
}

/// The right edge of a tree: the roots of its perfect subtrees, largest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    /// INVARIANT: one node per set bit of `size`, from the highest.
    nodes: Vec<Hash>,
}

impl Frontier {
    /// Leaves in the tree.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The roots of its perfect subtrees, largest first: with the size, all there is to keep of it.
    #[must_use]
    pub fn nodes(&self) -> &[Hash] {
        &self.nodes
    }

    /// The right edge of a tree of `size` leaves with these `nodes`; `None` where a tree of that size has not as many.
    #[must_use]
    pub fn from_nodes(size: u64, nodes: Vec<Hash>) -> Option<Self> {
        (nodes.len() == size.count_ones() as usize).then_some(Self { size, nodes })
    }

    /// Adds a leaf.
    pub fn push(&mut self, leaf: &[u8]) {
        self.push_subtree(0, leaf_hash(leaf));
    }

    /// Adds a perfect subtree of 2^`height` leaves, by which the size must be divisible.
    fn push_subtree(&mut self, height: u32, mut node: Hash) {
        debug_assert!(
            self.size.is_multiple_of(1 << height),
            "it cannot stand there"
        );
        let mut carry = self.size >> height;
        while carry & 1 == 1 {
            if let Some(left) = self.nodes.pop() {
                node = node_hash(&left, &node);
            }
            carry >>= 1;
        }
        self.nodes.push(node);
        self.size += 1 << height;
    }

    /// The right half of the tree that `leaf`, as the next one, makes a perfect one of two leaves or more: what the path of the
    /// first leaf goes on with. `None` where it does not.
    #[must_use]
    pub fn right_half(&self, leaf: &[u8]) -> Option<Hash> {
        let (_, right) = self.nodes.split_first()?;
        let completes = (self.size + 1).is_power_of_two();
        let join = |node: Hash, left: &Hash| node_hash(left, &node);
        completes.then(|| right.iter().rev().fold(leaf_hash(leaf), join))
    }

    /// Leaves in its largest perfect subtree, the first of them the tree's; 0 of an empty tree.
    #[must_use]
    pub fn perfect(&self) -> u64 {
        self.size.checked_ilog2().map_or(0, |height| 1 << height)
    }

    /// Adds the leaves of a span, which must begin where this ends.
    pub fn append(&mut self, span: &Span) {
        for (height, node) in &span.nodes {
            self.push_subtree(*height, *node);
        }
    }

    /// The part of it that is over leaves from `first` on, as a tree of its own; `first` must be where one of its subtrees
    /// begins, or their end.
    pub(super) fn behind(&self, first: u64, end: u64) -> Self {
        let (mut at, mut part) = (0, Self::default());
        for (height, node) in heights(self.size).zip(&self.nodes) {
            if (first..end).contains(&at) {
                part.push_subtree(height, *node);
            }
            at += 1 << height;
        }
        part
    }

    /// The root; of an empty tree the hash of nothing.
    #[must_use]
    pub fn root(&self) -> Hash {
        let mut right_to_left = self.nodes.iter().rev();
        let Some(last) = right_to_left.next() else {
            return Hash(Sha256::digest([]).into());
        };
        right_to_left.fold(*last, |right, left| node_hash(left, &right))
    }
}

/// The roots of the perfect subtrees over some leaves of a tree, from the left, whatever stands before them.
#[derive(Clone, Debug)]
pub struct Span {
    /// The leaf after the last one.
    end: u64,
    nodes: Vec<(u32, Hash)>,
}

impl Span {
    /// No leaves yet, the first to come being that of this index.
    #[must_use]
    pub fn new(first: u64) -> Self {
        Self {
            end: first,
            nodes: Vec::new(),
        }
    }

    /// Adds a leaf.
    pub fn push(&mut self, leaf: &[u8]) {
        let (mut height, mut node, mut start) = (0, leaf_hash(leaf), self.end);
        // Only what is the right half of a subtree is joined to the left one.
        while start >> height & 1 == 1
            && let Some((_, left)) = self.nodes.pop_if(|(of, _)| *of == height)
        {
            node = node_hash(&left, &node);
            start -= 1 << height;
            height += 1;
        }
        self.nodes.push((height, node));
        self.end += 1;
    }
}

/// The heights of the perfect subtrees of a tree of `size` leaves, from the left.
fn heights(size: u64) -> impl Iterator<Item = u32> {
    (0..u64::BITS).rev().filter(move |bit| size >> bit & 1 == 1)
}

/// The root that `leaf`, the one of this `index` in a tree of `size`, and its `path` lead to; `None` where the path is
/// not as long as such a tree's (RFC 9162, section 2.1.3.2).
#[must_use]
pub fn root_of_leaf(leaf: &[u8], index: u64, size: u64, path: &[Hash]) -> Option<Hash> {
    if index >= size {
        return None;
    }
    let (mut at, mut last) = (index, size - 1);
    let mut node = leaf_hash(leaf);
    for sibling in path {
        if last == 0 {
            return None;
        }
        if at & 1 == 1 || at == last {
            node = node_hash(sibling, &node);
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            node = node_hash(&node, sibling);
        }
        at >>= 1;
        last >>= 1;
    }
    (last == 0).then_some(node)
}

fn leaf_hash(leaf: &[u8]) -> Hash {
    let mut hasher = Sha256::new();
    hasher.update([0]);
    hasher.update(leaf);
    Hash(hasher.finalize().into())
}

fn node_hash(left: &Hash, right: &Hash) -> Hash {
    let mut hasher = Sha256::new();
    hasher.update([1]);
    hasher.update(left.0);
    hasher.update(right.0);
    Hash(hasher.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6962 §2.1, word for word.
    fn mth(leaves: &[Vec<u8>]) -> Hash {
        match leaves {
            [] => Hash(Sha256::digest([]).into()),
            [one] => leaf_hash(one),
            many => {
                let split = many.len().next_power_of_two() / 2;
                node_hash(&mth(&many[..split]), &mth(&many[split..]))
            }
        }
    }

    #[test]
    fn the_frontier_agrees_with_the_recursive_definition_at_every_size() {
        let leaves: Vec<Vec<u8>> = (0..300_u32).map(|n| n.to_be_bytes().to_vec()).collect();
        let mut frontier = Frontier::default();
        for size in 0..leaves.len() {
            assert_eq!(frontier.root(), mth(&leaves[..size]), "size {size}");
            assert_eq!(frontier.size(), size as u64);
            frontier.push(&leaves[size]);
        }
    }

    #[test]
    fn the_first_leafs_path_is_made_of_right_halves_as_the_tree_grows() {
        let leaves: Vec<Vec<u8>> = (0..300_u32).map(|n| n.to_be_bytes().to_vec()).collect();
        let (mut tree, mut path) = (Frontier::default(), Vec::new());
        for leaf in &leaves {
            path.extend(tree.right_half(leaf));
            tree.push(leaf);
            let perfect = tree.perfect();
            let root = root_of_leaf(&leaves[0], 0, perfect, &path);
            assert_eq!(root, Some(tree.nodes()[0]), "{}", tree.size());
            assert_eq!(root, Some(mth(&leaves[..perfect as usize])));
        }
    }

    #[test]
    fn a_tree_put_together_from_spans_is_the_same_wherever_it_was_cut() {
        let leaves: Vec<Vec<u8>> = (0..70_u32).map(|n| n.to_be_bytes().to_vec()).collect();
        let mut whole = Frontier::default();
        leaves.iter().for_each(|leaf| whole.push(leaf));
        for first in 0..leaves.len() {
            for second in first..=leaves.len() {
                let mut tree = Frontier::default();
                for range in [0..first, first..second, second..leaves.len()] {
                    let mut span = Span::new(range.start as u64);
                    leaves[range].iter().for_each(|leaf| span.push(leaf));
                    tree.append(&span);
                }
                assert_eq!(tree, whole, "cut at {first} and {second}");
            }
        }
    }

    /// The leaves and roots of the Certificate Transparency reference implementation's tests.
    #[test]
    fn the_roots_of_the_reference_implementation() {
        let leaves = [
            "",
            "00",
            "10",
            "2021",
            "3031",
            "40414243",
            "5051525354555657",
            "606162636465666768696a6b6c6d6e6f",
        ];
        let roots = [
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
            "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
            "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
            "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
            "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
        ];
        let mut frontier = Frontier::default();
        for (leaf, root) in leaves.iter().zip(roots) {
            frontier.push(&hex::decode(leaf).unwrap());
            assert_eq!(frontier.root().to_string(), root);
        }
    }
}
