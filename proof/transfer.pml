/* Leadership that moves on purpose (docs/protocol.md, "Moving leadership"): transfer, priority, going to the end of the line,
 * for exhaustive checks with spin. election.pml has the rest, and what it proves is taken as given here: a lost reply to a
 * vote, withdrawals, ballots that are deleted by hand. README.md says what is proved, and what is left out.
 *
 * One tree with one history. The events of watches are taken at any time after they happened, also after later answers. A
 * request is executed at any time after it was sent, or never, and its answer can be lost. What a candidate knows of the
 * request for a transfer is as old as can be. The lease is taken for right (lease.smt2).
 *
 * -DN=3          candidates; the one with the higher index has the higher priority
 * -DEXP=1        sessions that expire           -DLOST=1   requests or answers that are lost
 * -DASKS=1       requests for a transfer        -DTWO      two askers
 * -DPRIO=1       moves for priority             -DDEMOTE=1 goings to the end of the line for want of a lease
 * -DLAPSE=1      leases that lapse              -DHANG=1   OnStepDown functions that outlive their time
 * -DDEAD=1       processes that die, their session expires later
 * -DRESIGN=1     resignations, each followed by another vote at some time
 * -DFAIL=1       takeovers that fail, each followed by another vote at some time
 * -DOLD=k        member k is of an earlier version: it takes no part in moves
 * -DGEM=k        member k is one of the gem's: so is that, and it watches nobody before it has seen an acknowledgement
 * -DUNACKED      the first leader has not acknowledged yet
 * -DLAG          a server that is behind answers reads
 * -DCYCLES       for a search for cycles
 * -DUNLEARN_...  un-learns one rule; each must be caught
 * -DREACH=k      control: a situation that must be met is taken for an error
 */
#ifndef N
#define N 3
#endif
#ifndef EXP
#define EXP 0
#endif
#ifndef LOST
#define LOST 0
#endif
#ifndef ASKS
#define ASKS 1
#endif
#ifndef PRIO
#define PRIO 0
#endif
#ifndef DEMOTE
#define DEMOTE 0
#endif
#ifndef LAPSE
#define LAPSE 0
#endif
#ifndef HANG
#define HANG 0
#endif
#ifndef DEAD
#define DEAD 0
#endif
#ifndef RESIGN
#define RESIGN 0
#endif
#ifndef FAIL
#define FAIL 0
#endif
#ifndef OLD
#define OLD 99
#endif
#ifndef GEM
#define GEM 98
#endif
#ifndef REACH
#define REACH 0
#endif
#ifndef SLACK
#define SLACK 0
#endif
/* So many ballots are created at most: for each request everybody between moves, and the leader. */
#define M (N + EXP + DEAD + PRIO + DEMOTE + HANG + RESIGN + FAIL + ASKS*(N-1) + SLACK)

/* phases */
#define IDLE 0       /* no ballot: votes */
#define WAITING 1
#define WATCHING 2   /* listed, the predecessor not watched yet */
#define CLAIMING 3
#define WINNING 4    /* leads; OnWin runs, then the acknowledgement is written */
#define LEADING 5
#define PASSING 6    /* leads; "passing" is being written */
#define LEAVING 7    /* OnStepDown runs */
#define MOVING 8
#define WITHDRAWING 9

/* why it moves */
#define ASIDE 1      /* it stands between the leader and the target */
#define BETTER 2     /* a better one stands behind it */
#define LACKS 3      /* the lowest, without a lease */
#define HANDOVER 4   /* the leader, to the target */

/* states of the request */
#define ASKED 1
#define READY 2
#define PASSED 3     /* "passing": the leader has begun to step down for it */
#define DONE 4

#define OK 1
#define REFUSED 2
#define UNKNOWN 3

/* The tree: ballots with their owner + 1; leader_ack with its owner + 1 and the ballot that it was written for; the node
 * of the request, which is known by its number, 0 for none. Its version is its state: each state is written once. */
byte owner[M+1];
byte next = N+1;
byte ack, ackOf;
byte req, reqState, reqTarget;
byte reqOf;                 /* whose content it has: the same, if nobody writes into another's */
byte asked;                 /* requests there have been */
byte created;
#ifdef LAG
byte lagged[M+1];
bool behind;                /* it shows less than there is */
bool fresh[N];              /* has seen something newer than that */
#define FRESH(i) fresh[i] = true
#define CHANGED behind = true
#define STALE(i) (!fresh[i] && lagged[bal[i]] == i+1)
#define SHOWN(s) ((stale && lagged[s]) || (!stale && owner[s]))
#else
#define FRESH(i) skip
#define CHANGED skip
#define STALE(i) false
#define SHOWN(s) owner[s]
#endif

/* the candidates */
bool alive[N], dead[N], leads[N], placed[N], calling[N];
bool awake[N];              /* of the gem: it has seen an acknowledgement since it voted */
byte phase[N], why[N], bal[N], below[N], pred[N], answer[N];
byte wPred[N], evPred[N];   /* the watch on the predecessor, and its event */
byte kReq[N], kState[N], kTarget[N]; /* what it knows of the request */
byte said[N];               /* the request that it has sent "ready" for, which may be executed at any time */
byte acts[N];               /* the request that it moves or passes leadership for */
bool again[N];              /* votes again */
#ifdef CYCLES
bool refused[N];            /* to make way; it tries again after a pause */
#define REFUSED_TO(i) refused[i] = why[i] == ASIDE
#else
#define REFUSED_TO(i) skip
#endif

byte exps = EXP, losts = LOST, prios = PRIO, demotes = DEMOTE, lapses = LAPSE, hangs = HANG, deads = DEAD, resigns = RESIGN, fails = FAIL;

/* for the properties only */
bool two_leaders, two_ballots, ack_without_ballot, lowest_moved, failure_lies, success_lies, wrong_successor,
  steps_down_twice, unasked, handed_to_the_dead, work_goes_on, request_stays, nobody_leads, met;
inline refute(name, cond) { if :: (cond) -> name = true; assert(!name) :: else fi }
byte given;                 /* the ballot that leadership was passed to and that has not led yet */
byte failed;                /* request that was reported as one that does not happen */
bool askedDead;             /* the target's process had died when it was asked for */
byte has[N], acted[N];      /* ballots; the last request that it has stepped down for */
byte ledBy[M+1];            /* ballots that have led */

#define mine(s,i) (owner[s] == i+1)
#define takesPart(i) (i != OLD && i != GEM)
#define up(i) (alive[i] && !dead[i])
/* Which node it is, and which version. A version alone says nothing of which: each node begins with the same. */
#ifdef UNLEARN_VERSION_ALONE
#define SAME(id, state) (req && reqState == state)
#else
#define SAME(id, state) (req == id && reqState == state)
#endif

/* --- the ensemble */

inline gone(s) {
  has[owner[s]-1]--; owner[s] = 0; CHANGED; k = 0;
  do
  :: k < N -> if :: wPred[k] == s -> evPred[k] = s; wPred[k] = 0 :: else fi; k++
  :: else -> k = 0; break
  od
}
inline make(i) { assert(next <= M); owner[next] = i+1; CHANGED; has[i]++; refute(two_ballots, has[i] > 1); FRESH(i) }
#if GEM < 98
#define ACKNOWLEDGED awake[GEM] = true
/* i leaves the first place without an acknowledgement: the gem's, if it is next, is shown one */
inline wakeNext(i) {
  n = bal[i]+1; do :: n <= M && owner[n] == 0 -> n++ :: else -> break od;
  if :: n <= M && mine(n, GEM) -> awake[GEM] = true :: else fi; n = 0
}
#else
#define ACKNOWLEDGED skip
inline wakeNext(i) { skip }
#endif
inline lowest() { n = 1; do :: n <= M && owner[n] == 0 -> n++ :: else -> break od; if :: n > M -> n = 0 :: else fi }
inline remove() { req = 0; reqState = 0; reqTarget = 0; reqOf = 0; askedDead = false }

/* the transaction of a move, as the server does it; the answer is in ok */
inline execute(i) {
  ok = mine(bal[i], i);
#ifdef UNLEARN_MOVE_WITHOUT_OWN
  ok = true;
#endif
  if
  :: why[i] == HANDOVER ->
#ifndef UNLEARN_PASSES_TO_NOBODY
     if :: owner[kTarget[i]] == 0 -> ok = false :: else fi;
#endif
#ifndef UNLEARN_PASSES_UNASKED
     if :: !SAME(acts[i], PASSED) -> ok = false :: else fi
#else
     skip
#endif
  :: why[i] == ASIDE || why[i] == BETTER ->
#ifndef UNLEARN_MOVES_WHEN_LOWEST
     if :: first == 0 || owner[first] == 0 -> ok = false :: else fi;
#endif
     /* An acknowledgement stands with the ballot of whoever leads, so this is enough for the rule above, too, until somebody
      * deletes a ballot by hand. */
#if !defined(UNLEARN_MOVES_UNACKNOWLEDGED) && !defined(UNLEARN_MOVES_WHEN_LOWEST)
     if :: ack == 0 -> ok = false :: else fi;
#endif
     if
     :: why[i] == ASIDE ->
#ifndef UNLEARN_MOVES_UNASKED
        if :: !(SAME(acts[i], ASKED) || SAME(acts[i], READY)) || owner[kTarget[i]] == 0 -> ok = false :: else fi
#else
        skip
#endif
     :: else
     fi
  :: else
  fi;
  if
  :: ok ->
     if :: why[i] == ASIDE || why[i] == BETTER -> lowest(); refute(lowest_moved, n == bal[i]); n = 0 :: else fi;
     refute(failure_lies, why[i] == HANDOVER && failed == acts[i]);
     refute(unasked, (why[i] == ASIDE || why[i] == HANDOVER) && req != acts[i]);
     refute(handed_to_the_dead, why[i] == HANDOVER && req == acts[i] && askedDead);
     refute(work_goes_on, calling[i]);
#ifndef UNLEARN_MOVE_LEAVES_ACK
     if :: ack == i+1 -> ack = 0; ackOf = 0
#ifndef UNLEARN_GEM_LEFT_WAITING
        :: ack == 0 && why[i] == LACKS -> wakeNext(i)
#endif
        :: else fi;
#endif
     if :: mine(bal[i], i) -> gone(bal[i]) :: else fi;
     make(i); created = next; next++;
     refute(ack_without_ballot, ack && owner[ackOf] != ack);
     if
     :: why[i] == HANDOVER ->
        lowest(); refute(wrong_successor, n != kTarget[i]); n = 0;
        given = kTarget[i];
        if :: SAME(acts[i], PASSED) -> reqState = DONE :: else fi
     :: else
     fi;
     answer[i] = OK
  :: else -> answer[i] = REFUSED
  fi;
  ok = false
}

inline expire(i) {
  alive[i] = false; leads[i] = false; n = 1;
  do
  :: n <= M -> if :: mine(n,i) -> if :: given == n -> given = 0 :: else fi; gone(n) :: else fi; n++
  :: else -> n = 0; break
  od;
  if :: ack == i+1 -> ack = 0; ackOf = 0 :: else fi
}

proctype ensemble() {
  byte i, n, k;
end:
  do
  :: atomic { exps > 0 -> exps--; select(i : 0 .. N-1); if :: up(i) -> expire(i) :: else fi; i = 0 }
  :: atomic { deads > 0 -> deads--; select(i : 0 .. N-1); if :: up(i) -> dead[i] = true; leads[i] = false :: else fi; i = 0 }
  :: atomic { alive[0] && dead[0] -> i = 0; expire(i); i = 0 } /* and another process starts */
  :: atomic { alive[1] && dead[1] -> i = 1; expire(i); i = 0 }
  :: atomic { alive[2] && dead[2] -> i = 2; expire(i); i = 0 }
#if N == 4
  :: atomic { alive[3] && dead[3] -> i = 3; expire(i); i = 0 }
#endif
  :: atomic { lapses > 0 -> lapses--; select(i : 0 .. N-1); leads[i] = false; i = 0 }
#ifdef LAG
  :: atomic { /* the server that was behind has caught up */
       behind -> behind = false; n = 1; do :: n <= M -> lagged[n] = owner[n]; n++ :: else -> n = 0; break od;
       do :: n < N -> fresh[n] = false; n++ :: else -> n = 0; break od }
#endif
  od
}

/* --- a candidate */

inline forget(i) { placed[i] = false; below[i] = 0; pred[i] = 0; wPred[i] = 0; evPred[i] = 0 }
inline becomeIdle(i) {
  forget(i); bal[i] = 0; leads[i] = false; calling[i] = false; answer[i] = 0; why[i] = 0; acts[i] = 0; said[i] = 0; first = 0;
  phase[i] = IDLE
}
inline newBallot(i, s) { /* with nothing of the old one's */
#ifndef UNLEARN_MOVE_KEEPS_PLACE
  forget(i);
#endif
  bal[i] = s; said[i] = 0; phase[i] = WAITING
}
inline place(i) {
  below[i] = 0; pred[i] = 0; first = 0; n = 1;
  do
  :: n <= M ->
     if :: SHOWN(n) && n < bal[i] -> below[i]++; pred[i] = n; if :: first == 0 -> first = n :: else fi :: else fi;
     n++
  :: else -> n = 0; break
  od
}
/* what the request is, as it is read again after an answer */
inline readRequest(i) { kReq[i] = reqOf; kState[i] = reqState; kTarget[i] = reqTarget }
inline leave(i) { leads[i] = false; calling[i] = true; phase[i] = LEAVING }

/* someone behind i is better than it */
#define BT(s) (s <= M && s > bal[i] && owner[(s <= M -> s : 0)] > i+1 && takesPart(owner[(s <= M -> s : 0)]-1))
#define SOMEBETTER (BT(2) || BT(3) || BT(4) || BT(5) || BT(6) || BT(7) || BT(8) || BT(9) || BT(10) || BT(11) || BT(12))

proctype cand(byte i) {
  byte n, k;
  byte first;               /* the first in line, as the last list has shown it */
  bool ok, stale;
end:
  do
  :: atomic { !alive[i] ->
       /* what the client has not sent yet it sends on the next session */
       if :: phase[i] == MOVING && !answer[i] -> if :: true :: execute(i) fi :: else fi;
       becomeIdle(i); kReq[i] = 0; kState[i] = 0; kTarget[i] = 0; alive[i] = true; dead[i] = false; again[i] = true; FRESH(i) }

  /* --- voting; a lost reply is election.pml's */
  :: atomic { up(i) && phase[i] == IDLE && again[i] ->
       again[i] = false; make(i); bal[i] = next; next++; phase[i] = WAITING;
#if GEM < 98
       if :: i == GEM -> awake[i] = (ack != 0); lowest(); awake[i] = awake[i] || n == bal[i]; n = 0 :: else fi
#endif
     }

  /* --- waiting: a list, perhaps from a server that is behind, then the watch on the one in front */
  :: atomic { up(i) && phase[i] == WAITING && !placed[i] && (i != GEM || awake[i]) ->
       if :: true :: STALE(i) -> stale = true fi;
       place(i);
       if :: !stale -> FRESH(i) :: else fi;
       stale = false;
       if :: below[i] == 0 -> phase[i] = CLAIMING :: else -> phase[i] = WATCHING fi }
  :: atomic { up(i) && phase[i] == WATCHING ->
       phase[i] = WAITING;
       if
       :: owner[pred[i]] -> wPred[i] = pred[i]; placed[i] = true; FRESH(i)
       :: owner[pred[i]] == 0 -> FRESH(i);
          if :: below[i] == 1 && i != GEM -> below[i] = 0; phase[i] = CLAIMING :: else fi
#ifdef LAG
       :: owner[pred[i]] == 0 && !fresh[i] && lagged[pred[i]] -> evPred[i] = pred[i]; placed[i] = true
#endif
       fi }
  /* it has gone: nobody is in front when it was the only one; else the list again */
  :: atomic { up(i) && evPred[i] && placed[i] && (phase[i] == WAITING
#ifdef UNLEARN_EVENTS_TAKEN_WHILE_MOVING
       || phase[i] == MOVING && why[i] != HANDOVER
#endif
       ) ->
       evPred[i] = 0; placed[i] = false; FRESH(i);
       if :: below[i] == 1 && i != GEM -> below[i] = 0; why[i] = 0; answer[i] = 0; phase[i] = CLAIMING :: else fi }

  /* --- leading */
  :: atomic { up(i) && phase[i] == CLAIMING ->
       leads[i] = true; ledBy[bal[i]] = true; phase[i] = WINNING;
       if :: given == bal[i] -> given = 0 :: else fi }
  :: atomic { up(i) && phase[i] == CLAIMING && takesPart(i) && demotes > 0 ->
       demotes--; if :: given == bal[i] -> given = 0 :: else fi; why[i] = LACKS; phase[i] = MOVING }
  :: atomic { up(i) && phase[i] == WINNING && leads[i] ->
       if :: mine(bal[i], i) -> ack = i+1; ackOf = bal[i]; ACKNOWLEDGED; phase[i] = LEADING; FRESH(i)
          :: else -> becomeIdle(i); again[i] = true fi }
  :: atomic { up(i) && phase[i] == WINNING && leads[i] && fails > 0 -> fails--; leave(i); why[i] = 0; acts[i] = 0; again[i] = true }
  :: atomic { up(i) && phase[i] >= WINNING && phase[i] <= PASSING && !leads[i] -> answer[i] = 0; acts[i] = 0; leave(i) }
  :: atomic { up(i) && phase[i] == LEADING && resigns > 0 -> resigns--; leave(i); again[i] = true }

  /* --- what is known of the request: any time, and as old as can be */
  :: atomic { up(i) && takesPart(i) && (kReq[i] != reqOf || kState[i] != reqState) && !acts[i] -> readRequest(i) }

  /* between the leader and the target: to the end. Its own place need not be known, only who was the first. */
  :: atomic { (up(i) && phase[i] == WAITING && first && kState[i] == ASKED && bal[i] < kTarget[i]
#if defined(CYCLES) && !defined(UNLEARN_NO_PAUSE)
       /* No time passes here, so what may end the reason of a refusal need not happen before the next try. It does in the
        * pause: a search for cycles would find tries that are refused, and nothing else. */
       && (!refused[i] || ack && owner[first] && owner[kTarget[i]] && SAME(kReq[i], kState[i]))
#endif
       ) ->
       acts[i] = kReq[i]; why[i] = ASIDE; phase[i] = MOVING }
  /* a better one stands behind: not while a request is seen */
  :: atomic { up(i) && phase[i] == WAITING && placed[i] && takesPart(i) && prios > 0 && !kReq[i] && SOMEBETTER ->
       prios--; why[i] = BETTER; phase[i] = MOVING }

  /* the target is next: it says that it is ready */
  :: atomic { up(i) && phase[i] == WAITING && placed[i] && below[i] == 1 && kState[i] == ASKED && kTarget[i] == bal[i] && said[i] != kReq[i] ->
       said[i] = kReq[i] }
  :: atomic { alive[i] && said[i] && phase[i] != IDLE && SAME(said[i], ASKED) && bal[i] && mine(bal[i], i) && kTarget[i] == bal[i] && kReq[i] == said[i] ->
       reqState = READY; reqOf = said[i]; reqTarget = bal[i] }

  /* the leader, when the target is ready: "passing", then it steps down */
  :: atomic { (up(i) && phase[i] == LEADING && leads[i] && takesPart(i) && kTarget[i] > bal[i]
#ifndef UNLEARN_PASSES_TO_WHO_IS_NOT_READY
       && kState[i] == READY
#else
       && (kState[i] == READY || kState[i] == ASKED)
#endif
       ) -> acts[i] = kReq[i]; phase[i] = PASSING }
  :: atomic { up(i) && phase[i] == PASSING && !answer[i] ->
       if
       :: if
#ifdef UNLEARN_STEPS_DOWN_ON_HEARSAY
          :: true -> answer[i] = OK
#endif
          :: mine(bal[i], i) && SAME(acts[i], kState[i]) -> reqState = PASSED; reqOf = acts[i]; reqTarget = kTarget[i]; answer[i] = OK
          :: else -> answer[i] = REFUSED
          fi;
          if :: true :: losts > 0 -> losts--; answer[i] = UNKNOWN fi
       :: losts > 0 -> losts--; answer[i] = UNKNOWN
       fi }
  :: atomic { up(i) && phase[i] == PASSING && answer[i] && leads[i] ->
       if
       :: answer[i] == OK || answer[i] == UNKNOWN && SAME(acts[i], PASSED) -> /* behind a barrier */
          refute(steps_down_twice, acted[i] == acts[i]);
          acted[i] = acts[i]; why[i] = HANDOVER;
#ifdef UNLEARN_LEADS_WHILE_PASSING
          phase[i] = MOVING
#else
          leave(i)
#endif
       :: else -> acts[i] = 0; readRequest(i); phase[i] = LEADING
       fi; answer[i] = 0 }
  /* a leader that does not pass finds "passing": what it has begun itself and could not do, or one before it. Or one that
   * nothing comes of: it is removed. */
  :: atomic { up(i) && phase[i] == LEADING && leads[i] && kReq[i] && kState[i] != READY ->
       if :: SAME(kReq[i], kState[i]) && mine(bal[i], i) -> remove() :: else fi; readRequest(i) }

  /* --- leaving: OnStepDown returns, or does not */
  :: atomic { up(i) && phase[i] == LEAVING && calling[i] -> calling[i] = false }
  :: atomic { up(i) && phase[i] == LEAVING && calling[i] && hangs > 0 -> hangs--; calling[i] = false; again[i] = true; acts[i] = 0; why[i] = 0; phase[i] = WITHDRAWING }
#ifdef UNLEARN_PASSES_WHILE_WORK_GOES_ON
  :: atomic { up(i) && phase[i] == LEAVING && calling[i] && acts[i] -> phase[i] = MOVING }
#endif
  :: atomic { up(i) && phase[i] == LEAVING && !calling[i] ->
       if
       :: again[i] -> acts[i] = 0; why[i] = 0; phase[i] = WITHDRAWING
       :: !again[i] && acts[i] -> phase[i] = MOVING
       :: else -> phase[i] = CLAIMING
       fi }
  :: atomic { up(i) && phase[i] == WITHDRAWING ->
       if :: mine(bal[i], i) -> if :: ack == i+1 -> ack = 0; ackOf = 0 :: ack == 0 -> wakeNext(i) :: else fi; gone(bal[i]) :: else fi;
       becomeIdle(i) }

  /* --- moving: nothing is claimed, and events are not taken */
  :: atomic { up(i) && phase[i] == MOVING && !answer[i] ->
       if
       :: execute(i); if :: true :: losts > 0 -> losts--; answer[i] = UNKNOWN fi
       :: losts > 0 -> losts--; answer[i] = UNKNOWN
       fi }
  :: atomic { up(i) && phase[i] == MOVING && answer[i] ->
       /* the answer tells; or behind a barrier a list, for the old name and the new tag */
       FRESH(i); n = 1; do :: n <= M && !mine(n,i) -> n++ :: else -> break od;
       leads[i] = false;
       if
       :: n > M -> becomeIdle(i); again[i] = true
       :: n <= M && n != bal[i] -> newBallot(i, n)
       :: else -> /* not moved: everything anew, and the request is read before anything else */
          forget(i);
          REFUSED_TO(i);
          if :: why[i] == HANDOVER || why[i] == LACKS -> phase[i] = CLAIMING :: else -> phase[i] = WAITING fi
       fi;
#ifndef UNLEARN_STEPS_DOWN_ON_HEARSAY
       if :: phase[i] != IDLE -> readRequest(i) :: else fi;
#endif
       answer[i] = 0; why[i] = 0; acts[i] = 0; n = 0 }
  od
}

/* --- who asks. One that fails or dies takes the request back, or its session's end does. */
proctype asker() {
  byte t, me, n;
end:
  do
  :: atomic { asked < ASKS && req == 0 && !me ->
       select(t : 1 .. M-1);
       if
       :: owner[t] && takesPart(owner[t]-1) -> asked++; me = asked; req = me; reqOf = me; reqState = ASKED; reqTarget = t; askedDead = dead[owner[t]-1]
       :: else -> asked++; t = 0
       fi }
  /* its time is over. While leadership is being passed it cannot be taken back, and may still happen. */
  :: atomic { me && req == me && (reqState == ASKED || reqState == READY
#ifdef UNLEARN_WITHDRAWN_AT_ANY_TIME
       || reqState == PASSED || reqState == DONE
#endif
       ) -> if :: failed = me; refute(failure_lies, reqState == DONE) :: failed = failed fi; remove(); me = 0; t = 0 }
  :: atomic { me && req == me -> remove(); me = 0; t = 0 } /* its session has expired: it does not know */
  /* success: the target has acknowledged, after "done" or because whoever led is gone */
  :: atomic { me && req == me && (ackOf == t && reqState != PASSED || ackOf == t && owner[t]
#ifdef UNLEARN_SUCCESS_WHEN_DONE
       || reqState == DONE
#endif
       ) -> refute(success_lies, !ledBy[t]); remove(); me = 0; t = 0 }
  :: atomic { me && req == me && (reqState == ASKED || reqState == READY || reqState == DONE) && owner[t] == 0 -> remove(); me = 0; t = 0 }
  /* it was removed: it never happens, or has happened */
  :: atomic { me && req != me -> me = 0; t = 0 }
  od
}

#define L(i) (leads[i] -> 1 : 0)
#if N == 3
#define LEADERS (L(0)+L(1)+L(2))
#else
#define LEADERS (L(0)+L(1)+L(2)+L(3))
#endif
proctype monitor() {
end:
  do
  :: atomic { LEADERS > 1 -> refute(two_leaders, true) }
  :: atomic { ack && owner[ackOf] != ack -> refute(ack_without_ballot, true) }
#if REACH == 1    /* leadership has been passed, and the target leads */
  :: atomic { reqState == DONE && ackOf == reqTarget -> refute(met, true) }
#elif REACH == 2  /* a transfer fails after its leader has stepped down for it */
  :: atomic { phase[0] == CLAIMING && acted[0] && reqState == PASSED -> refute(met, true) }
#elif REACH == 3  /* the target has died, and said that it is ready before */
  :: atomic { reqState == PASSED && dead[N-1] && reqTarget == bal[N-1] -> refute(met, true) }
#elif REACH == 4  /* a move for priority is under way while one is asked for */
  :: atomic { req && phase[1] == MOVING && why[1] == BETTER -> refute(met, true) }
#elif REACH == 5  /* the member of the gem leads */
  :: atomic { leads[N-1] && ack == N -> refute(met, true) }
#endif
  :: atomic { timeout -> /* nothing is left to happen */
       refute(nobody_leads, LEADERS != 1 || given);
       refute(request_stays, req);
#if REACH == 9    /* the end */
       refute(met, true);
#endif
       break }
  od
}

init {
  byte i;
  atomic {
    do
    :: i < N -> owner[i+1] = i+1; has[i] = 1; alive[i] = true; bal[i] = i+1; phase[i] = WAITING; awake[i] = true;
#ifdef LAG
       lagged[i+1] = i+1;
#endif
       i++
    :: else -> i = 0; break
    od;
    leads[0] = true; ledBy[1] = true; phase[0] = LEADING; ack = 1; ackOf = 1;
#ifdef UNACKED
    phase[0] = WINNING; ack = 0; ackOf = 0; i = 0;
#if GEM < 98
    awake[GEM] = false;
#endif
#endif
    do :: i < N -> run cand(i); i++ :: else -> i = 0; break od;
    run ensemble(); run asker(); run monitor()
#ifdef TWO
    ; run asker()
#endif
  }
}
