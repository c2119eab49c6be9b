//! What a chain means, as one digest.
//!
//! Every value is written with its length, every list with its count and every choice with a letter, so that no two chains
//! read the same. Types are taken apart whole: a field that is added to one must be dealt with here before it compiles.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use sha2::{Digest as _, Sha256};

use super::{ApprovalRule, Effect, Masking, Policy};
use crate::{
    approval::{Requirement, Slot, Wait},
    detect::Entity,
    mask::Operator,
};

/// The digest of `policies` in this order.
pub(super) fn of(policies: &[Arc<Policy>]) -> [u8; 32] {
    let mut written = Written(Sha256::new_with_prefix(b"countersign/chain/v1\0"));
    written.count(policies.len());
    for policy in policies {
        let Policy { name, when, then } = &**policy;
        written.text(name);
        written.text(when.text());
        written.effect(then);
    }
    written.0.finalize().into()
}

struct Written(Sha256);

impl Written {
    fn count(&mut self, n: usize) {
        self.0.update((n as u64).to_be_bytes());
    }

    fn text(&mut self, text: &str) {
        self.count(text.len());
        self.0.update(text.as_bytes());
    }

    fn texts(&mut self, texts: &[String]) {
        self.count(texts.len());
        texts.iter().for_each(|text| self.text(text));
    }

    fn set(&mut self, texts: &BTreeSet<String>) {
        self.count(texts.len());
        texts.iter().for_each(|text| self.text(text));
    }

    fn effect(&mut self, effect: &Effect) {
        match effect {
            Effect::Allow => self.text("allow"),
            Effect::AllowUpgrade => self.text("allow_upgrade"),
            Effect::Deny(reason) => {
                self.text("deny");
                self.text(reason);
            }
            Effect::Mask(Masking {
                request,
                response,
                exempt_groups,
            }) => {
                self.text("mask");
                self.masked(request);
                self.masked(response);
                self.set(exempt_groups);
            }
            Effect::RequireApproval(rule) => {
                self.text("require_approval");
                self.rule(rule);
            }
        }
    }

    fn masked(&mut self, masked: &BTreeMap<Entity, Operator>) {
        self.count(masked.len());
        for (entity, operator) in masked {
            self.text(entity);
            self.text(&operator.to_string());
            if let Operator::Vault(restore) = operator {
                self.count(usize::from(restore.tool_arguments));
                self.count(usize::from(restore.links));
            }
        }
    }

    fn rule(&mut self, rule: &ApprovalRule) {
        let ApprovalRule {
            requirement,
            wait,
            max_hold,
            mutable,
        } = rule;
        let Requirement {
            slots,
            reasons,
            break_glass,
            expires_ms,
        } = requirement;
        self.count(slots.len());
        for Slot { group, distinct } in slots {
            self.text(group);
            self.count(usize::from(*distinct));
        }
        self.texts(reasons);
        self.set(break_glass);
        self.0.update(expires_ms.to_be_bytes());
        self.text(match wait {
            Wait::Hold => "hold",
            Wait::Defer => "defer",
            Wait::Caller => "caller",
        });
        self.0.update(max_hold.as_nanos().to_be_bytes());
        self.count(usize::from(*mutable));
    }
}
