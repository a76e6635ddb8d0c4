; The lease (docs/protocol.md, section 5) as linear arithmetic over the reals: can a session be over while its client still
; holds a lease? "unsat" is the proof that it cannot. By hand: z3 proof/lease.smt2; every question: make prove.
;
; The unit of time is the session timeout T. An event is a moment by the clock of the ensemble's leader; one of the
; client's has besides, ending in .c, what the client's clock shows then. Nothing bounds how long anything takes on the way.

; --- Parameters: the rule and the assumptions as they stand. lease_test.go asks for each row with other values.

(define-fun rho () Real (/ 1.0 12.0))          ; the rates of the two clocks differ by at most this
(define-fun standstill () Real 0.0)            ; for so long in all the client's clock may stand still unnoticed
(define-fun late () Real (/ 1.0 100.0))        ; the leader's pings come late by at most this
(define-fun span () Real (/ 11.0 12.0))        ; the lease lasts so long after the sending of m
(define-fun allowed-rate () Real (/ 13.0 12.0)); h = allowed-rate * (tick/2 + allowed-late)
(define-fun allowed-late () Real (/ 1.0 100.0))
(define-fun where () Int 0)                    ; the session's server: 0 a follower, 1 the ensemble's leader or the only
                                               ; server, 2 a follower left for another between m and n, unnoticed,
                                               ; 3 an observer that gets its pings from a follower
(define-fun handshake () Bool false)           ; m is the handshake that created or resumed the session
(define-fun aged () Bool true)                 ; m was answered at least h before p was sent, and not only before
(define-fun paired () Bool true)               ; p was answered before n was sent, and not only sent before
(define-fun quorum () Bool true)               ; p and n are writes, which pass the leader; otherwise any server answers
(define-fun tick-right () Bool true)           ; the tick that the rule knows is no less than the servers'
(define-fun from-answer () Bool false)         ; the lease counts from the answer of m
(define-fun simple () Bool false)              ; the lease is valid until half a timeout after the sending of n
(define-fun granted () Real 1.0)               ; what the server granted, where the client takes T for it
(define-fun former () Real 1.0)                ; what the connection before this one granted
(define-fun regranted () Real 1.0)             ; what a handshake grants that resumes the session later
(define-fun answer-read () Bool true)          ; its answer is read within 11/12 of what it grants
(define-fun lost-in-a-sweep () Bool false)     ; the server loses the sign of life
(define-fun ask () Bool true)                  ; false: only whether all this can happen at all

; --- The client's events. n is the heartbeat whose answer makes the lease, p the newest one that had been answered when
; n was sent (others may be under way), m the request that the lease counts from.

(declare-const m-sent Real)      (declare-const m-sent.c Real)
(declare-const m-answered Real)  (declare-const m-answered.c Real)
(declare-const p-sent Real)      (declare-const p-sent.c Real)
(declare-const p-answered Real)  (declare-const p-answered.c Real)
(declare-const n-sent Real)      (declare-const n-sent.c Real)
(declare-const n-answered Real)  (declare-const n-answered.c Real)
(declare-const use Real)         (declare-const use.c Real)        ; IsLeader returns true
(declare-const again-sent Real)  (declare-const again-sent.c Real) ; a handshake that resumes the session later, if ever
(declare-const again-read Real)  (declare-const again-read.c Real)

; Between any two moments the client's clock advances by what the leader's does, within rho, less a standstill.
(define-fun clocks ((a Real) (a.c Real) (b Real) (b.c Real)) Bool
  (and (=> (<= a b) (and (<= a.c b.c)
                         (<= (- (* (- 1.0 rho) (- b a)) standstill) (- b.c a.c))
                         (<= (- b.c a.c) (* (+ 1.0 rho) (- b a)))))
       (=> (<= b a) (and (<= b.c a.c)
                         (<= (- (* (- 1.0 rho) (- a b)) standstill) (- a.c b.c))
                         (<= (- a.c b.c) (* (+ 1.0 rho) (- a b)))))))
(define-fun clocks-of ((e Real) (e.c Real)) Bool
  (and (clocks e e.c m-sent m-sent.c) (clocks e e.c m-answered m-answered.c)
       (clocks e e.c p-sent p-sent.c) (clocks e e.c p-answered p-answered.c)
       (clocks e e.c n-sent n-sent.c) (clocks e e.c n-answered n-answered.c)
       (clocks e e.c use use.c)
       (clocks e e.c again-sent again-sent.c) (clocks e e.c again-read again-read.c)))
(assert (clocks-of m-sent m-sent.c))
(assert (clocks-of m-answered m-answered.c))
(assert (clocks-of p-sent p-sent.c))
(assert (clocks-of p-answered p-answered.c))
(assert (clocks-of n-sent n-sent.c))
(assert (clocks-of n-answered n-answered.c))
(assert (clocks-of use use.c))
(assert (clocks-of again-sent again-sent.c))

(assert (= m-sent 0.0))
(assert (= m-sent.c 0.0))
(assert (< p-sent p-answered))
(assert (< p-sent n-sent))
(assert (=> paired (<= p-answered n-sent)))

; --- The servers' events, by the leader's clock.

(declare-const tick Real)       ; the servers' own
(declare-const tick-known Real) ; SessionOptions.TickTime, or T/2
(assert (and (< 0.0 tick) (< 0.0 tick-known)))
(assert (=> tick-right (<= tick tick-known)))

; The client's server hears m and answers it.
(declare-const m-heard Real)
(assert (and (< m-sent m-heard) (< m-heard m-answered)))

; The leader commits p after it was sent, the server hears of that, and then the client. n passes the server on its way
; to the leader, which accepts it, and so knows the session then, and the answer comes back.
(declare-const p-committed Real)
(declare-const p-told Real)
(declare-const n-reached Real)
(declare-const n-accepted Real)
(assert (and (< p-committed p-told) (< p-told p-answered)))
(assert (=> quorum (< p-sent p-committed)))
(assert (and (< n-sent n-reached) (< n-reached n-answered)))
(assert (and (< n-reached n-accepted) (=> quorum (< n-accepted n-answered))))

; The first ping after the server heard m. Pings and commits come to the server in the order in which they were sent; it
; answers a ping at once, with all sessions that it has heard since the one before; and that answer and requests come
; to the leader in order, too.
(declare-const ping Real)
(declare-const ping-reached Real)
(declare-const told Real) ; the leader reads the answer, and touches the session
(assert (and (<= m-heard ping) (<= ping (+ m-heard (/ tick 2.0) late))))
(assert (and (< ping ping-reached) (< ping-reached told)))
(assert (=> (< ping p-committed) (< ping-reached p-told)))
(assert (=> (and (< ping-reached n-reached) (distinct where 3)) (< told n-accepted)))

; When the leader is told of m, by place and kind. The leader touches a session itself when a request of it arrives
; there, and when a handshake creates or resumes it anywhere, since the server must ask the leader. An observer behind a
; follower tells that one, which tells the leader when it is pinged itself: no order holds between that and n.
(declare-const touched Real)
(assert (ite handshake (= touched m-heard)
        (ite (= where 1) (= touched m-heard)
        (ite (= where 2) (and (<= m-answered touched) (<= touched n-sent)) ; a handshake in between
        (ite (= where 3) (< told touched)
             (and (< m-heard touched) (<= touched told))))))) ; a ping that was under way may have told it sooner

; A session is over no earlier than the timeout after it was touched last, a timeout that comes with the touch; and not
; before n is accepted. Touches besides that of m: a former server tells late of what it had heard; a new leader of the
; ensemble gives every session its timeout anew, having accepted nothing before that the old one committed later; a
; handshake resumes the session.
(declare-const over Real)
(declare-const former-tells Bool)    (declare-const former-told Real)
(declare-const leader-changes Bool)  (declare-const taken-over Real)
(declare-const resumes Bool)         (declare-const again-touched Real)
(declare-const deposed Bool) ; that handshake asked a leader that is the leader no more
(define-fun last ((t Real)) Bool
  (and (<= t over)
       (=> (and (<= touched over) (not lost-in-a-sweep)) (<= touched t))
       (=> (and former-tells (<= former-told over)) (<= former-told t))
       (=> (and leader-changes (<= taken-over over)) (<= taken-over t))
       (=> (and resumes (not deposed) (<= again-touched over)) (<= again-touched t))))
(assert (=> quorum (<= n-accepted over)))
(assert (=> leader-changes (< n-accepted taken-over)))
(assert (< again-sent again-touched again-read))
(assert (=> (and (not lost-in-a-sweep) (last touched)) (<= (+ touched granted) over)))
(assert (=> (and former-tells (last former-told)) (<= (+ former-told former) over)))
(assert (=> (and leader-changes (last taken-over)) (<= (+ taken-over former) over)))
(assert (=> (and resumes (not deposed) (last again-touched)) (<= (+ again-touched regranted) over)))

; --- The rule. Only what the client's clock shows enters.

(define-fun h () Real (* allowed-rate (+ (/ tick-known 2.0) allowed-late)))
(define-fun until () Real
  (ite simple (+ n-sent.c (/ 1.0 2.0))
  (ite from-answer (+ m-answered.c span)
       (+ m-sent.c span))))
(assert (<= m-answered.c (- p-sent.c (ite aged h 0.0))))
(assert (<= n-answered use))
(assert (< use.c until))
(assert (< n-answered again-sent)) ; until then the connection is the one of m, p and n
(assert (=> (and resumes (<= again-read use)) (< use.c (+ again-sent.c (* span regranted)))))
(assert (=> (and resumes answer-read) (<= again-read.c (+ again-sent.c (* span regranted)))))

; --- The question: leads, and the session is over.

(assert (=> ask (<= over use)))
(check-sat)
