/* The election (docs/protocol.md, sections 3 to 8): N candidates and the ensemble, for exhaustive checks with spin.
 * README.md says what is proved, and what is left out.
 *
 * A request is sent, executed and answered in three steps, and each can fail: it can be lost, also for so long that it
 * is executed after the client has given it up, and its answer can be lost. The events of watches are taken at any time
 * after they happened, also after later answers. The lease is taken for right (that is lease.smt2's part): a session
 * does not end while its client holds one. It lapses at any time, and returns.
 *
 * -DN=2           candidates
 * -DEXP=1         sessions that expire             -DLOST=1    requests or answers that are lost
 * -DLAPSE=1       leases that lapse                -DHAND=1    ballots that somebody deletes
 * -DRESIGN=1      resignations                     -DVOTES=1   votes after those or after a failed takeover
 * -DFAIL=1        takeovers that fail              -DDEAF=1    events of watches that get lost without a word
 * -DDEMOTE=1      goings to the end of the line for want of a lease
 * -DLAG           a server that is behind answers reads
 * -DUNLEARN_...   un-learns one thing; each must be caught
 * -DREACH=k       control: a situation that must be met is taken for an error
 */
#ifndef N
#define N 2
#endif
#ifndef EXP
#define EXP 0
#endif
#ifndef LOST
#define LOST 0
#endif
#ifndef LAPSE
#define LAPSE 0
#endif
#ifndef HAND
#define HAND 0
#endif
#ifndef RESIGN
#define RESIGN 0
#endif
#ifndef VOTES
#define VOTES 0
#endif
#ifndef FAIL
#define FAIL 0
#endif
#ifndef DEAF
#define DEAF 0
#endif
#ifndef DEMOTE
#define DEMOTE 0
#endif
#ifndef REACH
#define REACH 0
#endif
/* So many ballots are created at most; what un-learns a lesson may create more. */
#ifndef SLACK
#define SLACK 0
#endif
#define M (N + EXP + HAND + VOTES + DEMOTE + LOST + SLACK)
#define BYHAND 255

/* phases, as in phase.go; moving as for the end of the line */
#define IDLE 0
#define CASTING 1
#define WAITING 2
#define CLAIMING 3
#define WINNING 4
#define ACKING 5
#define LEADING 6
#define LEAVING 7
#define WITHDRAWING 8
#define MOVING 9

/* steps of an errand, between its requests */
#define START 0
#define FIND 1     /* casting: behind a barrier, look for a ballot with the tag */
#define CONFIRM 2  /* casting: is it ours, where does it stand */
#define PREDECESSOR 3 /* waiting: listed, the predecessor not watched yet */
#define READ 4     /* acking: whose acknowledgement is there */
#define SETTLE 5   /* acking, moving: a reply was lost; behind a barrier, what is there */
#define TIDY 6     /* withdrawing: the ballot was gone; the acknowledgement may not be */

/* requests that write */
#define CREATE 1
#define ACK 2        /* Check(ballot), Create(leader_ack) */
#define REPLACE 3    /* Check(ballot), Delete(leader_ack), Create(leader_ack) */
#define DELETE 4     /* Delete(ballot) */
#define DELETE2 5    /* Delete(leader_ack), Delete(ballot) */
#define REMOVE 6     /* Delete(leader_ack) */
#define MOVE 7       /* Delete(ballot), Create(ballot) */
#define MOVE2 8      /* Delete(leader_ack), Delete(ballot), Create(ballot) */

/* their answers */
#define OK 1
#define UNKNOWN 2    /* no answer */
#define GONE 3       /* the ballot is not there */
#define EXISTS 4     /* leader_ack is there */
#define NOACK 5      /* leader_ack is not there */

/* The tree. A ballot is its owner (candidate + 1) and the tag of its vote (0 to 2, so that votes that follow each other
 * have different tags). Numbers only grow; a ballot's number stands for its czxid, too. */
byte ballots[M+1];
byte next = 1;
byte ack, ackOf;            /* leader_ack: its owner + 1, and the ballot that it was written for */
#ifdef LAG
byte lagged[M+1];           /* what the server that is behind shows */
byte laggedAck;
bool behind;                /* it shows less than there is */
#define CHANGED behind = true
#else
#define CHANGED skip
#endif
bool fresh[N];              /* has seen something newer than that */

/* The sessions. A new one comes by itself after the old one has expired, at some time; then the loop notices. */
bool alive[N];
bool unnoticed[N];          /* the loop does not know of the present session yet */
bool lease[N];

/* The candidates' loops. */
byte phase[N], step[N], bal[N], below[N], pred[N];
byte tag[N];
bool want[N], withdraw[N], uncertain[N], placed[N], verify[N], acked[N], unsure[N], draining[N];
bool leads[N];              /* IsLeader: claimed, under a lease that has not lapsed since */
byte watchPred[N];
bool watchOwn[N], toldPred[N], toldOwn[N];

/* The write under way, if any, and one that its client has given up and that may still be executed. */
byte req[N], reqBal[N], answer[N], ghost[N], ghostBal[N];

byte exps = EXP, losts = LOST, lapses = LAPSE, hands = HAND, resigns = RESIGN, votes = VOTES, fails = FAIL, deafs = DEAF, demotes = DEMOTE;

/* For the properties only. Each property has a name, so that a counterexample says which one it is against. */
bool two_leaders, two_ballots, ack_without_ballot, foreign_ack, token_fell, work_goes_on, failed_leads, resignation_forgotten,
  ballot_unserved, unfinished, nobody_leads, met;
inline refute(name, cond) { if :: (cond) -> name = true; assert(!name) :: else fi }
bool robbed[N];             /* somebody deleted the ballot, and the candidate does not know yet */
bool resigned[N];           /* resigned since this vote began */
bool failed[N];             /* the takeover on this ballot failed */
bool asked[N];              /* the last that a caller asked for is a vote, and its takeover has not failed */
byte has[N];                /* ballots that exist */
byte token, leader;         /* of the last leader */

#define OWNED(i) ((i+1)*4+tag[i])
#define NEXTTAG(i) ((tag[i]+1)%3)
#define OWNED2(i) ((i+1)*4+NEXTTAG(i))
#define isOf(s,i) ((ballots[s] / 4) == i+1)
#define ready(i) (alive[i] && !unnoticed[i])
#define free(i) (req[i] == 0)
#define inLine(i) (phase[i] >= WAITING && phase[i] <= LEADING)
#ifdef LAG
#define SHOWN(s) ((stale && lagged[s]) || (!stale && ballots[s]))
#define STALE(i) !fresh[i]
#define STALEOWN(i) (!fresh[i] && lagged[bal[i]] == OWNED(i))
#define STALEPRED(i) (!fresh[i] && lagged[pred[i]])
#define STALEACK(i) (laggedAck == i+1)
#else
#define SHOWN(s) (ballots[s])
#define STALE(i) false
#define STALEOWN(i) false
#define STALEPRED(i) false
#define STALEACK(i) false
#endif

/* --- the ensemble */

inline gone(s) { /* ballot s is deleted, and who watches it is told */
  has[(ballots[s] / 4)-1]--; ballots[s] = 0; CHANGED; k = 0;
  do
  :: k < N ->
     if :: watchPred[k] == s -> watchPred[k] = 0;
           if :: toldPred[k] = true :: deafs > 0 -> deafs-- fi
        :: else fi;
     if :: watchOwn[k] && bal[k] == s -> watchOwn[k] = false;
           if :: phase[k] == WITHDRAWING
              :: phase[k] != WITHDRAWING -> if :: toldOwn[k] = true :: deafs > 0 -> deafs-- fi fi
        :: else fi;
     k++
  :: else -> k = 0; break
  od
}

inline created(owner) {
  assert(next <= M);
  ballots[next] = owner; has[((owner) / 4)-1]++; CHANGED; made = next; next++
}

/* one write, as the server executes it; the outcome is in result and made */
inline execute(i, what, s) {
  made = 0;
  if
  :: what == CREATE -> created(OWNED(i)); result = OK
  :: what == ACK || what == REPLACE ->
     if
#ifndef UNLEARN_ACK_UNGUARDED
     :: !isOf(s, i) -> result = GONE
     :: isOf(s, i) ->
#else
     :: true ->
#endif
        if :: what == ACK && ack -> result = EXISTS
           :: what == REPLACE && !ack -> result = NOACK
           :: else -> ack = i+1; ackOf = s; CHANGED; result = OK
        fi
     fi
  :: what == REMOVE -> ack = 0; ackOf = 0; CHANGED; result = OK
  :: what == DELETE || what == DELETE2 || what == MOVE || what == MOVE2 ->
     if
     :: (what == DELETE2 || what == MOVE2) && !ack -> result = NOACK
     :: else ->
        if
        :: !isOf(s, i) -> result = GONE
        :: else ->
           refute(work_goes_on, draining[i]);
           gone(s); result = OK;
           if :: what == DELETE2 || what == MOVE2 -> ack = 0; ackOf = 0; CHANGED :: else fi;
           if :: what == MOVE || what == MOVE2 -> created(OWNED2(i)) :: else fi
        fi
     fi
  fi
}

inline expire(i) { /* ZooKeeper ends the session; its ephemeral nodes go with it */
  alive[i] = false; n = 1;
#ifndef UNLEARN_LEASE_OUTLASTS_SESSION
  lease[i] = false; leads[i] = false;
#endif
  do :: n <= M -> if :: isOf(n, i) -> gone(n) :: else fi; n++ :: else -> n = 0; break od;
  if :: ack == i+1 -> ack = 0; ackOf = 0; CHANGED :: else fi
}

proctype ensemble() {
  byte i, n, k;
end:
  do
  :: atomic { exps > 0 -> exps--; select(i : 0 .. N-1); if :: alive[i] -> expire(i) :: else fi; i = 0 }
  :: atomic { lapses > 0 -> lapses--; select(i : 0 .. N-1); lease[i] = false; leads[i] = false; i = 0 }
  :: atomic { hands > 0 && next > 1 -> hands--; select(n : 1 .. next-1);
       if :: ballots[n] -> i = (ballots[n] / 4) - 1;
             if :: bal[i] == n -> robbed[i] = true :: else fi;
             if :: ackOf == n -> ackOf = BYHAND :: else fi;
             gone(n)
          :: else fi; i = 0; n = 0 }
#ifdef LAG
  :: atomic { /* the server that was behind has caught up */
       behind -> behind = false; n = 1; laggedAck = ack;
       do :: n <= M -> lagged[n] = ballots[n]; n++ :: else -> n = 0; break od;
       do :: n < N -> fresh[n] = false; n++ :: else -> n = 0; break od }
#endif
  od
}

/* --- a candidate's loop and its errands */

inline forget(i) { /* the ballot is no more */
  bal[i] = 0; placed[i] = false; below[i] = 0; pred[i] = 0; watchPred[i] = 0; toldPred[i] = false;
  watchOwn[i] = false; toldOwn[i] = false; robbed[i] = false; verify[i] = false; step[i] = START
}

inline becomeIdle(i) {
  forget(i); withdraw[i] = false; acked[i] = false; unsure[i] = false; lease[i] = false;
  resigned[i] = false; failed[i] = false; phase[i] = IDLE
}

inline leave(i) { leads[i] = false; draining[i] = true; step[i] = START; phase[i] = LEAVING }

inline ballotLost(i, deleted) {
  if :: phase[i] >= WINNING && phase[i] <= LEADING -> leave(i) :: else fi;
  if
  :: phase[i] == WAITING || phase[i] == CLAIMING ->
     if
#ifndef UNLEARN_ACK_OUTLIVES_BALLOT
     :: deleted && acked[i] -> withdraw[i] = true; step[i] = START; phase[i] = WITHDRAWING /* of what an earlier term acknowledged */
#endif
     :: else -> becomeIdle(i)
     fi
  :: phase[i] == LEAVING ->
     if :: deleted && acked[i] -> withdraw[i] = true; watchOwn[i] = false; toldOwn[i] = false; robbed[i] = false
        :: else -> forget(i)
     fi
  :: phase[i] == MOVING -> skip
  :: else
  fi
}

inline list(i) { /* place in the line */
  below[i] = 0; pred[i] = 0; n = 1;
  do
  :: n <= M ->
#ifdef UNLEARN_ORDER_BY_NAME
     if :: SHOWN(n) && (ballots[n] / 4) < i+1 -> below[i]++; pred[i] = n :: else fi;
#else
     if :: SHOWN(n) && n < bal[i] -> below[i]++; pred[i] = n :: else fi;
#endif
     n++
  :: else -> n = 0; break
  od
}

inline send(i, what, s) { req[i] = what; reqBal[i] = s; answer[i] = 0 }
inline done(i) { if :: answer[i] != UNKNOWN -> fresh[i] = true :: else fi; req[i] = 0; answer[i] = 0; reqBal[i] = 0 }
/* A heartbeat was answered on the present connection: what was sent on a former one has been executed, or never is. */
inline barrier(i) { ghost[i] = 0; ghostBal[i] = 0; fresh[i] = true }

/* the ballot that a vote made; 0 for none */
inline find(i, value) {
  n = 1; do :: n <= M && ballots[n] != value -> n++ :: else -> break od;
  if :: n > M -> n = 0 :: else fi
}

inline castDone(i) { /* with a ballot that is confirmed */
  if
  :: !want[i] || withdraw[i] -> withdraw[i] = true; step[i] = START; phase[i] = WITHDRAWING
  :: else ->
     refute(resignation_forgotten, resigned[i]);
     step[i] = START; verify[i] = false; placed[i] = (below[i] == 0);
     if :: below[i] == 0 -> phase[i] = CLAIMING :: else -> step[i] = PREDECESSOR; phase[i] = WAITING fi
  fi
}

/* is there an acknowledgement of ours: for those who are about to take it back */
#define OWNACK(i) ((!stale && ack == i+1) || (stale && STALEACK(i)))

proctype cand(byte i) {
  byte n, k, result, made;
  bool stale;
end:
  do
  /* --- the session */
  :: atomic { !alive[i] -> alive[i] = true; unnoticed[i] = true; ghost[i] = 0; ghostBal[i] = 0; fresh[i] = true }
  :: atomic { ready(i) == 0 && alive[i] ->
       unnoticed[i] = false;
#ifdef UNLEARN_NO_VOTE_AFTER_EXPIRY
       if :: bal[i] -> want[i] = false :: else fi;
#endif
#ifndef UNLEARN_SESSION_LOSS_UNNOTICED
       if :: bal[i] && phase[i] != CASTING -> ballotLost(i, false) :: else fi
#endif
     }
  /* two heartbeats were answered */
  :: atomic { ready(i) && !lease[i] && (phase[i] == CLAIMING || phase[i] == MOVING) -> lease[i] = true }

  /* --- a write reaches the server, or does not; its answer reaches the client, or does not */
  :: atomic { req[i] && !answer[i] && alive[i] ->
       execute(i, req[i], reqBal[i]);
       if :: answer[i] = result; if :: made -> reqBal[i] = made :: else fi
          :: losts > 0 -> losts--; answer[i] = UNKNOWN
       fi; made = 0; result = 0 }
  :: atomic { req[i] && !answer[i] && (losts > 0 || !alive[i]) ->
       if :: alive[i] -> losts-- :: else fi;
       if :: true :: alive[i] && !ghost[i] -> ghost[i] = req[i]; ghostBal[i] = reqBal[i] fi;
       answer[i] = UNKNOWN }
  :: atomic { ghost[i] && alive[i] && !unnoticed[i] ->
       execute(i, ghost[i], ghostBal[i]); ghost[i] = 0; ghostBal[i] = 0; made = 0; result = 0 }

  /* --- events of the own ballot */
  :: atomic { toldOwn[i] && (phase[i] == WAITING || phase[i] == CLAIMING || phase[i] == LEAVING) -> toldOwn[i] = false; ballotLost(i, true) }
#ifndef UNLEARN_BLIND_TO_OWN_BALLOT
  :: atomic { toldOwn[i] && phase[i] >= WINNING && phase[i] <= LEADING -> toldOwn[i] = false; ballotLost(i, true) }
#else
  :: atomic { toldOwn[i] && phase[i] >= WINNING && phase[i] <= LEADING -> toldOwn[i] = false; robbed[i] = false }
#endif
#ifndef UNLEARN_WATCH_TRUSTED
  /* the periodic recheck of it: an event was lost (finding nothing changes nothing, and is left out) */
  :: atomic { ready(i) && !watchOwn[i] && !toldOwn[i] && bal[i] && ballots[bal[i]] == 0 && (phase[i] == WAITING || phase[i] == CLAIMING
#ifndef UNLEARN_BLIND_TO_OWN_BALLOT
       || phase[i] == LEADING
#endif
       ) && free(i) -> ballotLost(i, true) }
#endif

  /* --- casting */
  :: atomic { phase[i] == IDLE && want[i] && ready(i) && free(i) && !draining[i] ->
       phase[i] = CASTING;
       if :: uncertain[i] -> step[i] = FIND :: else -> tag[i] = NEXTTAG(i); step[i] = START; send(i, CREATE, 0) fi }
  :: atomic { phase[i] == CASTING && req[i] == CREATE && answer[i] ->
       uncertain[i] = true;
       if
       :: withdraw[i] && answer[i] == UNKNOWN ->
#ifdef UNLEARN_LOST_REPLY_FORGOTTEN
          uncertain[i] = false;
#endif
          step[i] = START; phase[i] = WITHDRAWING
       :: withdraw[i] && answer[i] != UNKNOWN ->
#ifdef UNLEARN_CLOSE_OVERTAKES_CAST
          uncertain[i] = false; becomeIdle(i)
#else
          step[i] = START; phase[i] = WITHDRAWING
#endif
       :: !withdraw[i] && answer[i] == UNKNOWN -> step[i] = FIND
       :: !withdraw[i] && answer[i] != UNKNOWN -> bal[i] = reqBal[i]; step[i] = CONFIRM
       fi; done(i) }
  :: atomic { phase[i] == CASTING && free(i) && withdraw[i] -> forget(i); uncertain[i] = true; phase[i] = WITHDRAWING }
  :: atomic { phase[i] == CASTING && step[i] == FIND && ready(i) && !withdraw[i] ->
#ifdef UNLEARN_BARRIER
       if :: true :: STALE(i) -> stale = true fi;
       n = 1; do :: n <= M && !(SHOWN(n) && ballots[n] == OWNED(i)) -> n++ :: else -> break od;
       if :: n > M -> n = 0 :: else fi; stale = false;
#else
       barrier(i); find(i, OWNED(i));
#endif
#ifdef UNLEARN_NEW_TAG_EACH_TRY
       n = 0; tag[i] = NEXTTAG(i);
#endif
       if :: n -> bal[i] = n; step[i] = CONFIRM
          :: else -> step[i] = START; uncertain[i] = false; send(i, CREATE, 0)
       fi; n = 0 }
  :: atomic { phase[i] == CASTING && step[i] == CONFIRM && ready(i) && !withdraw[i] ->
       if
       :: ballots[bal[i]] == OWNED(i) || STALEOWN(i) ->
          uncertain[i] = false; acked[i] = false; unsure[i] = false;
          if :: ballots[bal[i]] == OWNED(i) -> watchOwn[i] = true :: else -> toldOwn[i] = true; robbed[i] = true fi;
          n = 1; do :: n <= M -> if :: n != bal[i] && ballots[n] == OWNED(i) -> gone(n) :: else fi; n++ :: else -> n = 0; break od;
          if :: true :: STALEOWN(i) -> stale = true fi;
          list(i); stale = false;
          castDone(i)
       :: else -> bal[i] = 0; uncertain[i] = true; step[i] = FIND
       fi }

  /* --- waiting: a list, perhaps from a server that is behind, then the watch on the one in front */
  :: atomic { phase[i] == WAITING && !placed[i] && step[i] == START && ready(i) ->
       if :: true :: STALEOWN(i) -> stale = true fi;
       if :: !stale && ballots[bal[i]] != OWNED(i) -> ballotLost(i, true)
          :: else -> list(i); if :: !stale -> fresh[i] = true :: else fi;
             if :: below[i] == 0 -> placed[i] = true; phase[i] = CLAIMING :: else -> step[i] = PREDECESSOR fi
       fi; stale = false }
  :: atomic { phase[i] == WAITING && step[i] == PREDECESSOR && ready(i) ->
       step[i] = START;
       if
       :: ballots[pred[i]] -> watchPred[i] = pred[i]; placed[i] = true; fresh[i] = true
       :: ballots[pred[i]] == 0 && STALEPRED(i) -> toldPred[i] = true; placed[i] = true
       :: ballots[pred[i]] == 0 -> fresh[i] = true;
          if :: below[i] == 1 -> below[i] = 0; pred[i] = 0; placed[i] = true; phase[i] = CLAIMING :: else fi
       fi }
  /* it has gone: nobody is in front when it was the only one; else the list again */
  :: atomic { phase[i] == WAITING && placed[i] && (toldPred[i]
#ifndef UNLEARN_WATCH_TRUSTED
       || ready(i) && !watchPred[i] && ballots[pred[i]] == 0
#endif
       ) ->
       toldPred[i] = false; watchPred[i] = 0; fresh[i] = true;
       if
#ifdef UNLEARN_NO_SECOND_LOOK
       :: true -> below[i] = 0; pred[i] = 0; phase[i] = CLAIMING
#else
       :: below[i] == 1 -> below[i] = 0; pred[i] = 0; phase[i] = CLAIMING
       :: else -> placed[i] = false
#endif
       fi }

  /* --- claiming */
  :: atomic { phase[i] == CLAIMING && verify[i] && ready(i) && free(i) ->
       if :: ballots[bal[i]] == OWNED(i) || STALEOWN(i) -> verify[i] = false
          :: ballots[bal[i]] != OWNED(i) -> ballotLost(i, true)
       fi }
  :: atomic { (phase[i] == CLAIMING && !verify[i]
#ifdef UNLEARN_CLAIMS_WHILE_MOVING
       || phase[i] == MOVING
#endif
       ) && lease[i] && ready(i) ->
       leads[i] = true; phase[i] = WINNING; step[i] = START;
       refute(failed_leads, failed[i]);
       refute(token_fell, !robbed[i] && (bal[i] < token || bal[i] == token && leader != i));
       if :: robbed[i] :: else -> token = bal[i]; leader = i fi }
  /* the lowest without a lease for long: to the end of the line */
  :: atomic { phase[i] == CLAIMING && !verify[i] && !lease[i] && ready(i) && free(i) && demotes > 0 ->
       demotes--; step[i] = START; phase[i] = MOVING }

  /* --- moving: what happens to the own ballot and the one in front is only noted, and nothing is claimed */
  :: atomic { phase[i] == MOVING && step[i] == START && free(i) && ready(i) ->
#ifdef UNLEARN_MOVE_LEAVES_ACKNOWLEDGEMENT
       acked[i] = false;
#endif
       if
#ifndef UNLEARN_MOVE_ACK_UNSETTLED
       :: acked[i] && unsure[i] -> barrier(i); unsure[i] = false
       :: acked[i] && !unsure[i] ->
#else
       :: acked[i] ->
#endif
          if :: true :: STALE(i) && !fresh[i] -> stale = true fi;
          if :: OWNACK(i) -> send(i, MOVE2, bal[i]) :: else -> acked[i] = false; send(i, MOVE, bal[i]) fi;
          stale = false
       :: !acked[i] -> send(i, MOVE, bal[i])
       fi }
  :: atomic { phase[i] == MOVING && answer[i] ->
       if
       :: answer[i] == NOACK -> acked[i] = false; step[i] = START
       :: answer[i] == OK && !unnoticed[i] ->
          n = reqBal[i];
#ifdef UNLEARN_MOVE_KEEPS_PLACE
          bal[i] = n; tag[i] = NEXTTAG(i); toldOwn[i] = false; watchOwn[i] = true; robbed[i] = false; acked[i] = false; step[i] = START; phase[i] = CLAIMING
#else
          /* a new ballot, with nothing of the old one's: confirmed like one that was just cast */
          forget(i); bal[i] = n; tag[i] = NEXTTAG(i); acked[i] = false; step[i] = CONFIRM; uncertain[i] = true; phase[i] = CASTING
#endif
       :: answer[i] == GONE || answer[i] == UNKNOWN || answer[i] == OK && unnoticed[i] -> step[i] = SETTLE
       fi; n = 0; done(i) }
  :: atomic { phase[i] == MOVING && step[i] == SETTLE && ready(i) && free(i) ->
       barrier(i); find(i, OWNED2(i));
       if
       :: n -> k = n; forget(i); bal[i] = k; k = 0; tag[i] = NEXTTAG(i); acked[i] = false; step[i] = CONFIRM; uncertain[i] = true; phase[i] = CASTING
       :: else ->
          if
          :: bal[i] && ballots[bal[i]] == OWNED(i) -> /* not moved: everything anew */
             placed[i] = false; below[i] = 0; pred[i] = 0; watchPred[i] = 0; toldPred[i] = false; toldOwn[i] = false; watchOwn[i] = true; robbed[i] = false; verify[i] = true; step[i] = START;
             if :: withdraw[i] || !want[i] -> phase[i] = WITHDRAWING :: else -> phase[i] = WAITING fi
          :: else -> becomeIdle(i)
          fi
       fi; n = 0 }
#ifdef UNLEARN_MOVED_TAKEN_FOR_DELETED
  :: atomic { phase[i] == MOVING && toldOwn[i] && (free(i) || answer[i]) -> done(i); tag[i] = NEXTTAG(i); becomeIdle(i) }
#endif

  /* --- the takeover */
  :: atomic { phase[i] == WINNING && leads[i] -> phase[i] = ACKING }
  :: atomic { phase[i] == WINNING && leads[i] && fails > 0 -> fails--; asked[i] = false;
#ifdef UNLEARN_FAILED_TAKEOVER_ACKNOWLEDGED
       failed[i] = true; phase[i] = ACKING
#else
       failed[i] = true;
#ifndef UNLEARN_FAILED_TAKEOVER_STAYS
       want[i] = false; withdraw[i] = true;
#endif
       leave(i)
#endif
     }
  :: atomic { phase[i] == ACKING && step[i] == START && free(i) && ready(i) ->
       /* verify stands for "maybe" of acknowledge: this ballot may have one already */
       verify[i] = acked[i]; acked[i] = true; unsure[i] = true; send(i, ACK, bal[i]) }
  :: atomic { phase[i] == ACKING && (req[i] == ACK || req[i] == REPLACE) && answer[i] ->
       if
       :: answer[i] == OK -> refute(failed_leads, failed[i]); unsure[i] = false; verify[i] = false; step[i] = START; phase[i] = LEADING
       :: answer[i] == GONE -> ballotLost(i, !unnoticed[i]) /* by what the session's id shows */
       :: answer[i] == UNKNOWN -> verify[i] = true; step[i] = SETTLE
       :: answer[i] == EXISTS || answer[i] == NOACK -> step[i] = READ
       fi; done(i) }
  :: atomic { phase[i] == ACKING && (step[i] == READ || step[i] == SETTLE) && free(i) && ready(i) ->
       if :: step[i] == SETTLE -> barrier(i) :: else fi;
       if :: true :: STALE(i) -> stale = true fi;
       if
       :: (!stale && !ack) || (stale && !STALEACK(i)) -> send(i, ACK, bal[i])
       :: else ->
          if
#ifdef UNLEARN_FOREIGN_ACK_KEPT
          :: true ->
#else
          :: OWNACK(i) && verify[i] ->
#endif
             refute(foreign_ack, !robbed[i] && ack != i+1);
             unsure[i] = false; verify[i] = false; step[i] = START; phase[i] = LEADING
#ifndef UNLEARN_FOREIGN_ACK_KEPT
          :: else -> send(i, REPLACE, bal[i])
#endif
          fi
       fi; stale = false;
       if :: req[i] -> step[i] = START :: else fi }
  /* somebody took it away: written again (in the code the phase stays leading meanwhile) */
  :: atomic { phase[i] == LEADING && ready(i) && free(i) && ack != i+1 && leads[i] -> step[i] = START; phase[i] = ACKING }

  /* --- the lease has lapsed, and the loop notices */
  :: atomic { phase[i] >= WINNING && phase[i] <= LEADING && !leads[i] -> leave(i) }

  /* --- leaving: OnStepDown returns */
  :: atomic { phase[i] == LEAVING && draining[i] -> draining[i] = false }
  :: atomic { (req[i] == ACK || req[i] == REPLACE) && answer[i] && phase[i] != ACKING -> /* of a term that is over */
       unsure[i] = (answer[i] != OK); done(i) }
#ifdef UNLEARN_BALLOT_BEFORE_DRAIN
  :: atomic { phase[i] == LEAVING && draining[i] && withdraw[i] -> step[i] = START; phase[i] = WITHDRAWING }
#endif
  :: atomic { phase[i] == LEAVING && !draining[i] ->
       verify[i] = false; step[i] = START;
       if
       :: withdraw[i] -> phase[i] = WITHDRAWING
       :: !withdraw[i] && !bal[i] -> becomeIdle(i)
       :: !withdraw[i] && bal[i] -> verify[i] = true; phase[i] = CLAIMING
       fi }

  /* --- withdrawing: the acknowledgement and the ballot, then what a lost reply may have left */
  :: atomic { phase[i] == WITHDRAWING && bal[i] && step[i] == START && free(i) && ready(i) ->
#ifdef UNLEARN_ACK_LEFT_BEHIND
       acked[i] = false;
#endif
       if
#ifndef UNLEARN_LAGGING_SERVER_BELIEVED
       :: acked[i] && unsure[i] -> barrier(i); unsure[i] = false
       :: acked[i] && !unsure[i] ->
#else
       :: acked[i] ->
#endif
          if :: true :: STALE(i) -> stale = true fi;
          if :: OWNACK(i) -> send(i, DELETE2, bal[i]) :: else -> acked[i] = false; send(i, DELETE, bal[i]) fi;
          stale = false
       :: !acked[i] -> send(i, DELETE, bal[i])
       fi }
  :: atomic { phase[i] == WITHDRAWING && bal[i] && (req[i] == DELETE || req[i] == DELETE2) && answer[i] ->
       if
#ifdef UNLEARN_CLEAN_UP_GIVES_UP
       :: answer[i] == UNKNOWN -> forget(i)
#else
       :: answer[i] == UNKNOWN -> step[i] = START /* and once more */
#endif
       :: answer[i] == OK -> forget(i)
       :: answer[i] == NOACK -> done(i); send(i, DELETE, bal[i])
       :: answer[i] == GONE -> if :: acked[i] -> step[i] = TIDY :: else -> forget(i) fi
       fi;
       if :: answer[i] -> done(i) :: else fi }
  :: atomic { phase[i] == WITHDRAWING && bal[i] && step[i] == TIDY && free(i) && ready(i) ->
       barrier(i);
       if :: ack == i+1 -> send(i, REMOVE, 0) :: else -> forget(i) fi }
  :: atomic { req[i] == REMOVE && answer[i] -> if :: answer[i] == UNKNOWN :: else -> forget(i) fi; done(i) }
  :: atomic { phase[i] == WITHDRAWING && bal[i] && !isOf(bal[i], i) && unnoticed[i] && free(i) -> forget(i) } /* the session's end withdraws everything */
  :: atomic { phase[i] == WITHDRAWING && !bal[i] && uncertain[i] && free(i) && ready(i) ->
       barrier(i); find(i, OWNED(i));
       if :: n -> send(i, DELETE, n) :: else -> uncertain[i] = false fi; n = 0 }
  :: atomic { phase[i] == WITHDRAWING && !bal[i] && req[i] == DELETE && answer[i] ->
#ifdef UNLEARN_CLEAN_UP_GIVES_UP
       if :: answer[i] == UNKNOWN -> uncertain[i] = false :: else fi;
#endif
       done(i) }
  :: atomic { phase[i] == WITHDRAWING && !bal[i] && !uncertain[i] && free(i) -> becomeIdle(i) }

  /* --- what callers ask */
  :: atomic { resigns > 0 && want[i] && phase[i] != IDLE ->
       resigns--; want[i] = false; asked[i] = false;
       if
       :: phase[i] == CASTING -> resigned[i] = true;
#ifndef UNLEARN_RESIGN_OVERTAKEN
          withdraw[i] = true
#else
          skip
#endif
       :: phase[i] == WAITING || phase[i] == CLAIMING -> step[i] = START; phase[i] = WITHDRAWING
       :: phase[i] >= WINNING && phase[i] <= LEADING -> withdraw[i] = true; leave(i)
       :: phase[i] == LEAVING || phase[i] == MOVING -> withdraw[i] = true
       :: else
       fi }
  :: atomic { votes > 0 && !want[i] -> votes--; if :: want[i] = true; asked[i] = true :: true fi }
  od
}

/* --- the properties */

#define BOTH(a,b) (leads[a] && !robbed[a] && leads[b] && !robbed[b])
#if N == 2
#define TWO BOTH(0,1)
#else
#define TWO (BOTH(0,1) || BOTH(0,2) || BOTH(1,2))
#endif

#define DOUBLE(i) (inLine(i) && has[i] > 1)

proctype monitor() {
  byte i, led, wanted;
end:
  do
  :: atomic { TWO -> refute(two_leaders, true) }
  :: atomic { ack && ackOf != BYHAND && ballots[ackOf] / 4 != ack -> refute(ack_without_ballot, true) }
  :: atomic { DOUBLE(0) || DOUBLE(1) || DOUBLE(N-1) -> refute(two_ballots, true) }
#if REACH == 1    /* a second candidate leads and has acknowledged */
  :: atomic { phase[0] == LEADING && token > N -> refute(met, true) }
#elif REACH == 2  /* a lost reply to the acknowledgement, and it is there at the withdrawal */
  :: atomic { ack == 1 && unsure[0] && phase[0] == WITHDRAWING -> refute(met, true) }
#elif REACH == 3  /* a ballot may still be created that was given up, while another leads */
  :: atomic { ghost[0] == CREATE && phase[1] == LEADING -> refute(met, true) }
#elif REACH == 4  /* the same of a move, and the lease is back */
  :: atomic { (ghost[0] == MOVE || ghost[0] == MOVE2) && lease[0] -> refute(met, true) }
#elif REACH == 5  /* a candidate leads again on its ballot after its lease lapsed */
  :: atomic { phase[0] == WINNING && acked[0] -> refute(met, true) }
#elif REACH == 6  /* two lead that are excused: a ballot was deleted by hand */
  :: atomic { leads[0] && leads[1] -> refute(met, true) }
#endif
  :: atomic { timeout -> /* nothing is left to happen */
       do
       :: i < N ->
          refute(ballot_unserved, has[i] != (inLine(i) -> 1 : 0));
          refute(unfinished, !free(i) || draining[i] || !(phase[i] == IDLE || phase[i] == WAITING || phase[i] == LEADING) || asked[i] != inLine(i));
          if :: leads[i] -> led++; refute(foreign_ack, ack != i+1 || (ackOf != bal[i] && ackOf != BYHAND)) :: else fi;
          if :: asked[i] -> wanted++ :: else fi;
          i++
       :: else -> break
       od;
       refute(nobody_leads, led != (wanted > 0 -> 1 : 0));
       refute(ack_without_ballot, !wanted && ack);
#if REACH == 9    /* the end */
       refute(met, true);
#endif
       break }
  od
}

init {
  byte i;
  atomic {
    do :: i < N -> alive[i] = true; want[i] = true; asked[i] = true; run cand(i); i++ :: else -> i = 0; break od;
    run ensemble(); run monitor()
  }
}
