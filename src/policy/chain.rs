//! The chain: policies in order, one verdict.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    ApprovalRule, Denial, Obligations, Outcome, Pending, Permit, Request, Verdict, digest,
    expression::{self, Expression},
    pattern::Patterns,
    vocabulary::{self, Named},
};
use crate::mask::{Operator, Owed};

/// A named policy: when a condition holds, something follows.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The name, as records and logs show it.
    pub name: String,
    /// The condition.
    pub when: Expression,
    /// What follows where it holds.
    pub then: Effect,
}

/// What follows where a policy's condition holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The call may go on under the obligations met so far. Ends the chain. Says nothing of an upgrade.
    Allow,
    /// The connection may be switched to another protocol, where nothing is owed that would have to see behind it. Ends the
    /// chain of an upgrade, and says nothing of any other call.
    AllowUpgrade,
    /// The call is refused, with this reason for the caller. Ends the chain.
    Deny(String),
    /// The call owes masking, should it be allowed further down. Does not end the chain.
    Mask(Masking),
    /// The call owes an approval, should it be allowed further down. Does not end the chain. Several add up:
    /// [`ApprovalRule::add`].
    RequireApproval(ApprovalRule),
}

/// What a policy masks, and for whom it does not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Masking {
    /// Entities masked in the prompt, each with its operator.
    pub request: Owed,
    /// Entities masked in the answer, each with its operator.
    pub response: Owed,
    /// A caller in any of these groups is exempt from this policy, not from another that masks the same entity.
    pub exempt_groups: BTreeSet<String>,
}

/// The policies of one connection, in order.
#[derive(Clone, Debug)]
pub struct Chain {
    policies: Vec<Arc<Policy>>,
    patterns: Arc<Patterns>,
    /// What its conditions depend on.
    named: Named,
    digest: [u8; 32],
}

/// The empty chain, which denies.
impl Default for Chain {
    fn default() -> Self {
        Self::new(Vec::new())
    }
}

impl Chain {
    /// A chain of `policies` in this order. The empty chain denies.
    #[must_use]
    pub fn new(policies: Vec<Arc<Policy>>) -> Self {
        let patterns = policies
            .iter()
            .flat_map(|policy| policy.when.patterns().clone())
            .collect();
        let mut named = Named::default();
        for policy in &policies {
            named.extend(policy.when.named());
        }
        Self {
            patterns: Arc::new(patterns),
            named,
            digest: digest::of(&policies),
            policies,
        }
    }

    /// SHA-256 over what the chain means: each policy's name, condition and effect, in order. Equal for chains that decide
    /// alike by the same words, whatever else the configuration says.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        self.digest
    }

    /// The policies in order.
    #[must_use]
    pub fn policies(&self) -> &[Arc<Policy>] {
        &self.policies
    }

    /// Decides on `request`.
    ///
    /// In order: a condition that does not hold is passed over; a mask adds its obligations unless the caller is
    /// exempt, and a required approval is added to what must be approved; allow and deny end the chain; its end denies.
    /// Where two masks oblige the same entity, the operator of the first in the chain stands. A condition that cannot be
    /// evaluated denies at once. For an upgrade, [`Effect::AllowUpgrade`] counts and [`Effect::Allow`] is passed over; for all
    /// else it is the other way round.
    #[must_use]
    pub fn evaluate(&self, request: &Request<'_>) -> Verdict {
        let mut context = expression::context(&self.patterns);
        vocabulary::bind(&mut context, request, &self.named);
        let mut obligations = Obligations::default();
        let mut approval: Option<ApprovalRule> = None;
        let mut decided_by = Vec::new();
        let mut exempt_from = Vec::new();
        for policy in &self.policies {
            let holds = match policy.when.holds(&context) {
                Ok(holds) => holds,
                Err(error) => {
                    decided_by.push(policy.name.clone());
                    let outcome = Outcome::Deny(Denial::CannotEvaluate);
                    let faults = vec![format!("policy `{}`: {error}", policy.name)];
                    return Verdict {
                        outcome,
                        decided_by,
                        exempt_from,
                        faults,
                    };
                }
            };
            if !holds || !policy.then.speaks_of(request.call.upgrade) {
                continue;
            }
            let outcome = match &policy.then {
                Effect::Mask(masking) if masking.exempts(request) => {
                    exempt_from.push(policy.name.clone());
                    continue;
                }
                Effect::Mask(masking) => {
                    decided_by.push(policy.name.clone());
                    masking.oblige(&mut obligations);
                    continue;
                }
                Effect::RequireApproval(rule) => {
                    decided_by.push(policy.name.clone());
                    match &mut approval {
                        Some(owed) => owed.add(rule),
                        None => approval = Some(rule.clone()),
                    }
                    continue;
                }
                Effect::Allow => match approval {
                    None => Outcome::Allow(Permit { obligations }),
                    Some(rule) => Outcome::Hold(Pending::new(obligations, rule)),
                },
                Effect::AllowUpgrade => match approval {
                    None if obligations == Obligations::default() => {
                        Outcome::Allow(Permit { obligations })
                    }
                    _ => Outcome::Deny(Denial::Unseen),
                },
                Effect::Deny(reason) => Outcome::Deny(Denial::ByPolicy(reason.clone())),
            };
            decided_by.push(policy.name.clone());
            return Verdict {
                outcome,
                decided_by,
                exempt_from,
                faults: Vec::new(),
            };
        }
        Verdict {
            outcome: Outcome::Deny(Denial::ByDefault),
            decided_by,
            exempt_from,
            faults: Vec::new(),
        }
    }

    /// Position of the first policy that always ends the chain: those behind it never count.
    #[must_use]
    pub fn ends_at(&self) -> Option<usize> {
        self.policies.iter().position(|policy| {
            policy.when.constant() == Some(true)
                && matches!(policy.then, Effect::Allow | Effect::Deny(_))
        })
    }

    /// Whether any of its policies masks with an operator that needs a key.
    #[must_use]
    pub fn needs_key(&self) -> bool {
        self.policies.iter().any(|policy| match &policy.then {
            Effect::Mask(masking) => masking.needs_key(),
            Effect::Allow | Effect::AllowUpgrade | Effect::Deny(_) | Effect::RequireApproval(_) => {
                false
            }
        })
    }

    /// Whether any of its policies could let a connection be switched to another protocol.
    #[must_use]
    pub fn may_upgrade(&self) -> bool {
        let mut policies = self.policies.iter();
        policies.any(|policy| policy.then == Effect::AllowUpgrade)
    }

    /// The most that a request could owe: every approval it asks for, added up. `None` where it asks for none.
    #[must_use]
    pub fn most_owed(&self) -> Option<ApprovalRule> {
        let mut rules = self
            .policies
            .iter()
            .filter_map(|policy| match &policy.then {
                Effect::RequireApproval(rule) => Some(rule),
                _ => None,
            });
        let mut most = rules.next()?.clone();
        rules.for_each(|rule| most.add(rule));
        Some(most)
    }

    /// Whether any request could be allowed, be it once it is approved.
    #[must_use]
    pub fn can_allow(&self) -> bool {
        let reached = self.ends_at().map_or(self.policies.len(), |last| last + 1);
        self.policies.iter().take(reached).any(|policy| {
            matches!(policy.then, Effect::Allow | Effect::AllowUpgrade)
                && policy.when.constant() != Some(false)
        })
    }
}

impl Effect {
    /// Whether it has a say where the connection would be switched to another protocol (`upgrade`), or where not.
    fn speaks_of(&self, upgrade: bool) -> bool {
        match self {
            Self::Allow => !upgrade,
            Self::AllowUpgrade => upgrade,
            Self::Deny(_) | Self::Mask(_) | Self::RequireApproval(_) => true,
        }
    }
}

impl Masking {
    /// Whether any of its operators needs a key.
    #[must_use]
    pub fn needs_key(&self) -> bool {
        let operators = self.request.values().chain(self.response.values());
        operators.copied().any(Operator::is_keyed)
    }

    fn exempts(&self, request: &Request<'_>) -> bool {
        request
            .principal
            .groups
            .iter()
            .any(|group| self.exempt_groups.contains(group))
    }

    fn oblige(&self, obligations: &mut Obligations) {
        let add = |to: &mut Owed, from: &Owed| {
            if to.is_empty() {
                to.clone_from(from);
            } else if !Arc::ptr_eq(to, from) {
                let to = Arc::make_mut(to);
                for (entity, operator) in &**from {
                    to.entry(entity.clone()).or_insert(*operator);
                }
            }
        };
        add(&mut obligations.mask_request, &self.request);
        add(&mut obligations.mask_response, &self.response);
    }
}
