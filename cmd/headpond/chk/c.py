import subprocess,json,time,os,signal,urllib.request,random
HP='/tmp/hpb/headpond'
u=subprocess.Popen([HP,'up','--ephemeral','--json','--listen','127.0.0.1:0','--log-level','error'],stdout=subprocess.PIPE,text=True)
try:
    j=json.loads(u.stdout.readline()); base=j['redis_url'].split('//')[1].split('/')[0]; h,p=base.split(':')
    c=subprocess.Popen(['psql',j['database_url'],'-qAt'],stdin=subprocess.PIPE,stdout=subprocess.PIPE,text=True)
    c.stdin.write("begin; select count(*) from (select 1 from headpond.watermarks for update) x;\n"); c.stdin.flush(); c.stdout.readline()
    cli=lambda *a: subprocess.check_output(['redis-cli','-h',h,'-p',p,*a],text=True)
    N=200000; r=random.Random(1)
    for _ in range(N//1000):
        b='\n'.join('{"user_id":%d,"kind":"page_view","amount":%d.50,"payload":{"page":"/item/%d","ref":"newsletter","ms":%d}}'%(r.randrange(10**6),r.randrange(1000),r.randrange(10**5),r.randrange(1000)) for _ in range(1000)).encode()
        q=urllib.request.Request(j['api']+'/v1/events',data=b,headers={'Content-Type':'application/x-ndjson'}); assert urllib.request.urlopen(q).status==202
    t={}
    for k in cli('--scan','--pattern','hp:{events*').split():
        kind=k.split(':')[2]; t[kind]=t.get(kind,0)+int(cli('memory','usage',k,'samples','0'))
    xl=sum(int(cli('xlen','hp:{events.%d}:log'%i)) for i in range(8))
    print('MEMORY USAGE per row:',{k:round(v/N,1) for k,v in t.items()},'sum',round(sum(t.values())/N,1),'rows/frame',N/max(xl,1))
    c.stdin.write("rollback;\n\\q\n"); c.stdin.flush(); c.wait()
finally:
    u.send_signal(signal.SIGINT); u.wait()
